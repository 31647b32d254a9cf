"""Bits/dim and reconstruction of every image of a split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.data import Batch, Readable
from glow_jax.data.batch_order import Process
from glow_jax.data.batching import batches_in_order
from glow_jax.devices import Devices, sum_over_processes
from glow_jax.model import Glow
from glow_jax.pixels import bits_per_dim, example_keys
from glow_jax.typing import Array

# Every evaluation uses the same noise, so that two models see the same inputs.
EVALUATION_SEED = 0

OnImages = Callable[[int], object]
"""Called after each batch with the number of its images, for a progress bar."""


@dataclass(frozen=True)
class BitsPerDim:
    """Bits/dim of each image of a split.

    Attributes:
        bits_per_dim: (N,).
    """

    bits_per_dim: np.ndarray

    @property
    def mean(self) -> float:
        """Mean bits/dim over images."""
        return float(self.bits_per_dim.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of `mean` over images."""
        count = len(self.bits_per_dim)
        return float(self.bits_per_dim.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0


@dataclass(frozen=True)
class Likelihood(BitsPerDim):
    """Bits/dim of each image of a split, averaged over draws of the noise.

    Attributes:
        bits_per_dim: (N,).
        level_bits_per_dim: each level's share, (N, L); the shares sum to `bits_per_dim`. The n_bits
            that a uniform distribution costs are divided among levels by their dimensions, and so
            is what variational noise saves.
    """

    level_bits_per_dim: np.ndarray


def ignore(_: object) -> None:
    """No progress bar, or nothing to do after a draw."""


def likelihood(
    model: Glow,
    split: Readable,
    devices: Devices,
    *,
    batch_size: int,
    draws: int = 1,
    progress: OnImages = ignore,
    on_draw: Callable[[Likelihood], object] = ignore,
) -> Likelihood:
    """Evaluate every image of a split.

    The noise depends only on the draw and on each image's place in the split.

    Args:
        model: the model.
        split: the images.
        devices: the devices to compute on.
        batch_size: images at a time, over all devices; the result does not depend on it.
        draws: draws of the noise to average over.
        progress: called after each batch with the number of its images.
        on_draw: called after each draw with the likelihoods of that draw.
    """
    config = model.config
    replicated = devices.replicate(model)
    total = np.zeros(len(split))
    by_level = np.zeros((len(split), config.L))
    pad_to = min(batch_size, len(split))
    for draw in range(draws):
        bits, level_bits = np.zeros_like(total), np.zeros_like(by_level)
        for batch in batches_in_order(
            split,
            batch_size=batch_size,
            classes=label_classes(config),
            process=Process(devices.process, devices.processes),
        ):
            found = likelihood_of_batch(replicated, batch, devices, draw=draw, pad_to=pad_to)
            bits[batch.indices] = found.bits_per_dim
            level_bits[batch.indices] = found.level_bits_per_dim
            progress(len(batch.indices))
        # Every process has filled in its own images and left the others at zero.
        of_draw = Likelihood(*(sum_over_processes(part) for part in (bits, level_bits)))
        on_draw(of_draw)
        total += of_draw.bits_per_dim
        by_level += of_draw.level_bits_per_dim
    return Likelihood(total / draws, by_level / draws)


def likelihood_of_batch(
    replicated: Glow, batch: Batch, devices: Devices, *, draw: int = 0, pad_to: int = 0
) -> Likelihood:
    """Evaluate this process's part of a batch.

    Args:
        replicated: the model on every device, as `devices.replicate` returns it.
        batch: the images.
        devices: the devices to compute on.
        draw: the number of the noise draw.
        pad_to: images in a whole batch, over all processes.
    """
    config = replicated.config
    numbers = np.full(len(batch.indices), draw, np.uint32)
    parts = (batch.images, batch.labels, batch.indices, numbers)
    results = devices.map_images(_log_prob, replicated, *parts, pad_to=pad_to)
    log_prob, level_log_prob = (np.asarray(part, np.float64) for part in results)
    level_bits = level_log_prob / (config.dimensions * np.log(2))
    of_dimensions = _of_dimensions(config)
    return Likelihood(
        np.asarray(bits_per_dim(log_prob, config.image_shape, n_bits=config.n_bits)),
        config.n_bits * of_dimensions - level_bits,
    )


def _log_prob(
    model: Glow, images: Array, labels: Array, indices: Array, draws: Array
) -> tuple[jax.Array, ...]:
    # The draw is one number per batch, but there is one per image: devices divide it like images.
    x = dequantized(model, images, indices, draw=draws[0])
    x, logdet = model.redequantize(x)
    code = model.encode(x, labels if model.config.y_condition else None)
    of_dimensions = jnp.asarray(_of_dimensions(model.config), logdet.dtype)
    return code.log_prob + logdet, code.level_log_prob + logdet[:, None] * of_dimensions


def _of_dimensions(config: ModelConfig) -> np.ndarray:
    """Each level's share of the dimensions, (L,)."""
    return np.array([np.prod(shape) for shape in config.latent_shapes]) / config.dimensions


def dequantized(model: Glow, images: Array, indices: Array, *, draw: Array | int = 0) -> jax.Array:
    """Dequantise a batch with the noise of every evaluation, fixed by draw and image index.

    It is uniform; a model may move it, see `Glow.redequantize`.
    """
    return model.dequantize(images, example_keys(EVALUATION_SEED, draw, indices))


class Reconstruction(NamedTuple):
    """How well the values of a split come back when they are encoded and decoded.

    Attributes:
        from_latents: the largest absolute error, decoded from the latents; NaN if any is.
        from_noise: the same, decoded from their unit-normal coordinates.
        images_off: the number of images of which, decoded either way, a value is off by more than
            half a grey level of the model, or not finite.
    """

    from_latents: float
    from_noise: float
    images_off: int


def reconstruction(
    model: Glow,
    split: Readable,
    devices: Devices,
    *,
    batch_size: int,
    progress: OnImages = ignore,
) -> Reconstruction:
    """Measure how well decoding inverts encoding on every image; arguments as for `likelihood`."""
    replicated = devices.replicate(model)
    worst, images_off = np.zeros(2), 0
    half_a_level = 0.5 / 2**model.config.n_bits
    pad_to = min(batch_size, len(split))
    classes = label_classes(model.config)
    for batch in batches_in_order(split, batch_size=batch_size, classes=classes):
        parts = (batch.images, batch.labels, batch.indices)
        errors = devices.map_images(_errors, replicated, *parts, pad_to=pad_to)
        worst = np.maximum(worst, [np.max(error) for error in errors])  # keeps NaN
        images_off += int(np.sum(~(np.maximum(*errors) <= half_a_level)))  # counts NaN
        progress(len(batch.indices))
    return Reconstruction(float(worst[0]), float(worst[1]), images_off)


def _errors(model: Glow, images: Array, labels: Array, indices: Array) -> tuple[jax.Array, ...]:
    y = labels if model.config.y_condition else None
    x = dequantized(model, images, indices)
    code = model.encode(x, y)
    decoded = model.decode(code.latents, y), model.decode_noise(code.noise, y)
    return tuple(jnp.max(jnp.abs(back - x), axis=(1, 2, 3)) for back in decoded)


def label_classes(config: ModelConfig) -> int:
    """The number of classes of the labels that a model needs; 0 if it needs none."""
    return config.y_classes if config.y_condition else 0
