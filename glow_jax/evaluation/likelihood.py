"""Bits/dim and reconstruction of whole splits, image by image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from glow_jax.config import ModelConfig
from glow_jax.data.batch_order import Process
from glow_jax.data.batching import Batch, batches_in_order
from glow_jax.data.dataset import Readable
from glow_jax.devices.parallel import DataParallel, sum_over_processes
from glow_jax.model import put_together
from glow_jax.pixels import bits_per_dim, dequantize, example_keys

# Noise of an evaluation: the same for every run, so that two models see the same inputs.
EVALUATION_SEED = 0


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of each image of a split, averaged over draws of the noise.

    Attributes:
        bits_per_dim: (N,).
        level_bits_per_dim: each level's share, (N, L); the shares sum to `bits_per_dim`. A level's
            share of the n_bits that a uniform distribution costs is its share of the dimensions.
    """

    bits_per_dim: np.ndarray
    level_bits_per_dim: np.ndarray

    @property
    def mean(self) -> float:
        """Mean bits/dim over images."""
        return float(self.bits_per_dim.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of `mean` over images."""
        count = len(self.bits_per_dim)
        return float(self.bits_per_dim.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0


Progress = Callable[[int], Any]


def make_batch_likelihood(
    parallel: DataParallel, graph: nnx.GraphDef, config: ModelConfig
) -> Callable[..., Likelihood]:
    """Build the evaluation of a batch.

    Args:
        parallel: the devices.
        graph: the model's structure.
        config: the model's configuration.

    Returns:
        likelihood(replicated, batch, draw=0, pad_to=0) -> Likelihood of this process's share of a
        `Batch`, with `replicated` the model's parameters and buffers on every device. The noise is
        a function of the draw and of each image's index.
    """

    def of_batch(state, images, labels, indices, draws):
        # One draw of the noise for the whole batch; per example so that it is shared like the rest.
        keys = example_keys(EVALUATION_SEED, draws[0], indices)
        x = dequantize(images, keys, n_bits=config.n_bits)
        code = put_together(graph, *state).encode(x, labels if config.y_condition else None)
        return code.log_prob, code.level_log_prob

    run = parallel.per_example(of_batch)
    of_dimensions = np.array([np.prod(shape) for shape in config.latent_shapes]) / config.dimensions

    def likelihood(replicated: Any, batch: Batch, draw: int = 0, pad_to: int = 0) -> Likelihood:
        numbers = np.full(len(batch.indices), draw, np.uint32)
        parts = (batch.images, batch.labels, batch.indices, numbers)
        results = run(replicated, *parts, pad_to=pad_to)
        log_prob, level_log_prob = (np.asarray(part, np.float64) for part in results)
        level_bits = level_log_prob / (config.dimensions * np.log(2))
        return Likelihood(
            np.asarray(bits_per_dim(log_prob, config.image_shape, n_bits=config.n_bits)),
            config.n_bits * of_dimensions - level_bits,
        )

    return likelihood


def make_likelihood(
    parallel: DataParallel, graph: nnx.GraphDef, config: ModelConfig, *, batch_size: int
) -> Callable[..., Likelihood]:
    """Build the evaluation of a split.

    Args:
        parallel: the devices.
        graph: the model's structure.
        config: the model's configuration.
        batch_size: images at a time, over all devices; the result does not depend on it.

    Returns:
        likelihood(replicated, split, draws=1, progress=ignore) -> Likelihood, with `replicated` the
        model's parameters and buffers on every device, and `progress` called with the number of
        images after each batch.
    """
    of_batch = make_batch_likelihood(parallel, graph, config)
    classes = config.y_classes if config.y_condition else 0
    process = Process(parallel.process, parallel.processes)

    def likelihood(
        replicated: Any, split: Readable, draws: int = 1, progress: Progress = lambda _: None
    ) -> Likelihood:
        total = np.zeros(len(split))
        by_level = np.zeros((len(split), config.L))
        pad_to = min(batch_size, len(split))
        for draw in range(draws):
            for batch in batches_in_order(
                split, batch_size=batch_size, classes=classes, process=process
            ):
                found = of_batch(replicated, batch, draw, pad_to)
                total[batch.indices] += found.bits_per_dim
                by_level[batch.indices] += found.level_bits_per_dim
                progress(len(batch.indices))
        # Every process has filled in its own images, and left the others' at zero.
        means = (sum_over_processes(part) / draws for part in (total, by_level))
        return Likelihood(*means)

    return likelihood


def make_reconstruction(
    parallel: DataParallel, graph: nnx.GraphDef, config: ModelConfig, *, batch_size: int
) -> Callable[..., dict[str, float]]:
    """Build the check that decoding undoes encoding.

    Returns:
        reconstruction(replicated, split, progress=ignore) -> the largest absolute difference from
        any image's values, once decoded from its latents and once from its noise.
    """

    def of_batch(state, images, labels, indices):
        model = put_together(graph, *state)
        y = labels if config.y_condition else None
        x = dequantize(images, example_keys(EVALUATION_SEED, 0, indices), n_bits=config.n_bits)
        code = model.encode(x, y)
        decoded = model.decode(code.latents, y), model.decode_noise(code.noise, y)
        return tuple(jnp.max(jnp.abs(back - x), axis=(1, 2, 3)) for back in decoded)

    run = parallel.per_example(of_batch)
    classes = config.y_classes if config.y_condition else 0

    def reconstruction(
        replicated: Any, split: Readable, progress: Progress = lambda _: None
    ) -> dict[str, float]:
        worst = np.zeros(2)
        pad_to = min(batch_size, len(split))
        for batch in batches_in_order(split, batch_size=batch_size, classes=classes):
            parts = (batch.images, batch.labels, batch.indices)
            errors = jax.tree.map(np.max, run(replicated, *parts, pad_to=pad_to))
            worst = np.maximum(worst, errors)  # keeps NaN
            progress(len(batch.indices))
        return {"from_latents": float(worst[0]), "from_noise": float(worst[1])}

    return reconstruction
