"""What is measured of each image: by the flow, by a second flow, and by image formats."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from glow_jax.config import ModelConfig
from glow_jax.data.batching import Batch
from glow_jax.devices.parallel import DataParallel
from glow_jax.evaluation.likelihood import EVALUATION_SEED, make_batch_likelihood
from glow_jax.model import Glow, put_together, take_apart
from glow_jax.ood.complexity import CODECS, code_length
from glow_jax.ood.scores import Score
from glow_jax.pixels import dequantize, example_keys

Measure = Callable[[Batch, int], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Meter:
    """A way to measure images.

    Attributes:
        name: what its file is called.
        gives: the names of its numbers.
        origin: what its numbers are functions of, beside the images.
        measure: a batch, and the size that it is padded to, to numbers by name, each (B, ...).
    """

    name: str
    gives: tuple[str, ...]
    origin: Mapping[str, Any]
    measure: Measure


@dataclass(frozen=True)
class Flow:
    """A model on its devices.

    Attributes:
        parallel: the devices.
        config: the model's configuration.
        graph: the model's structure.
        weights: its parameters and buffers, replicated.
        origin: what its numbers are functions of.
    """

    parallel: DataParallel
    config: ModelConfig
    graph: nnx.GraphDef
    weights: Any
    origin: Mapping[str, Any]


def make_flow(parallel: DataParallel, model: Glow, *, step: int, dtype: str) -> Flow:
    """A model that is ready to measure.

    Args:
        parallel: the devices.
        model: as it is to compute.
        step: its checkpoint, which tells its numbers from others', as does
        dtype: in which its coupling networks compute.
    """
    parts = take_apart(model)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((parts.params, parts.buffers)):
        digest.update(np.ascontiguousarray(leaf).data)
    origin = {
        "step": step,
        "weights_sha256": digest.hexdigest(),
        "architecture": dataclasses.asdict(model.config),
        "dtype": dtype,
        "noise_seed": EVALUATION_SEED,
    }
    weights = parallel.replicate((parts.params, parts.buffers))
    return Flow(parallel, model.config, parts.graph, weights, origin)


def likelihood_meter(flow: Flow) -> Meter:
    """Bits/dim, and each level's share: `bits_per_dim`, (B,), `level_bits_per_dim`, (B, L)."""
    of_batch = make_batch_likelihood(flow.parallel, flow.graph, flow.config)

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        found = of_batch(flow.weights, batch, pad_to=pad_to)
        return {
            "bits_per_dim": found.bits_per_dim,
            "level_bits_per_dim": found.level_bits_per_dim,
        }

    return Meter("likelihood", ("bits_per_dim", "level_bits_per_dim"), flow.origin, measure)


def background_meter(flow: Flow) -> Meter:
    """Bits/dim under a second model: `background_bits_per_dim`, (B,)."""
    own = likelihood_meter(flow)

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        return {"background_bits_per_dim": own.measure(batch, pad_to)["bits_per_dim"]}

    return Meter("background", ("background_bits_per_dim",), flow.origin, measure)


def gradient_meter(flow: Flow) -> Meter:
    """||d log p / dx|| at the dequantised image, nats per unit of x: `gradient_norm`, (B,).

    No image's likelihood depends on another, so that the gradient of the batch's sum has each
    image's own.
    """

    def of_batch(state: Any, images: jax.Array, indices: jax.Array) -> jax.Array:
        model = put_together(flow.graph, *state)
        x = dequantize(images, example_keys(EVALUATION_SEED, 0, indices), n_bits=flow.config.n_bits)
        gradient = jax.grad(lambda x: jnp.sum(model.log_prob(x)))(x)
        return jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2, 3)))

    run = flow.parallel.per_example(of_batch)

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        norms = run(flow.weights, batch.images, batch.indices, pad_to=pad_to)
        return {"gradient_norm": np.asarray(norms, np.float64)}

    return Meter("gradient_norm", ("gradient_norm",), flow.origin, measure)


def codec_meter(name: str, n_bits: int) -> Meter:
    """The length of each image in a format, in bits/dim: its name, (B,)."""
    codec = CODECS[name]

    def measure(batch: Batch, _: int) -> dict[str, np.ndarray]:
        return {name: code_length(batch.images, codec, n_bits=n_bits)}

    origin = {"codec": name, "version": codec.version(), "n_bits": n_bits}
    return Meter(name, (name,), origin, measure)


def meters_for(scores: Sequence[Score], flow: Flow, background: Flow | None) -> list[Meter]:
    """The meters whose numbers some score needs."""
    needed = {name for score in scores for name in score.needs}
    meters = [codec_meter(name, flow.config.n_bits) for name in CODECS if name in needed]
    if "gradient_norm" in needed:
        meters.insert(0, gradient_meter(flow))
    if "background_bits_per_dim" in needed and background is not None:
        meters.insert(0, background_meter(background))
    if needed & {"bits_per_dim", "level_bits_per_dim"}:
        meters.insert(0, likelihood_meter(flow))
    return meters
