"""Measuring each image: by the flow, by a second flow, and by image formats."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from glow_jax.data.batching import Batch
from glow_jax.devices import Devices
from glow_jax.evaluation.likelihood import (
    EVALUATION_SEED,
    dequantized,
    label_classes,
    likelihood_of_batch,
)
from glow_jax.kernels.products import Precision
from glow_jax.model import Glow, computing, weights_digest
from glow_jax.ood.complexity import CODECS, code_length
from glow_jax.ood.scores import BACKGROUND, ENSEMBLE, LAYER_NORMS
from glow_jax.typing import Array

LIKELIHOOD = "likelihood"
Measure = Callable[[Batch, int], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Meter:
    """A way to measure images.

    Attributes:
        name: the name of its file.
        gives: the names of its numbers.
        origin: what its numbers depend on, besides the images.
        measure: takes a batch and the size to pad it to; returns numbers by name, each (B, ...).
        on_processor: whether it needs no device, so that it can go on beside those that do.
        most: images of each set to measure at most; None for all.
        classes: the number of classes of the labels that it needs; 0 if it needs none.
    """

    name: str
    gives: tuple[str, ...]
    origin: Mapping[str, object]
    measure: Measure
    on_processor: bool = False
    most: int | None = None
    classes: int = 0


@dataclass(frozen=True)
class ReplicatedModel:
    """A model on its devices.

    Attributes:
        devices: the devices.
        model: the model, replicated over them.
        dtype: of its coupling networks.
        precision: of their convolutions.
        origin: what its numbers depend on.
    """

    devices: Devices
    model: Glow
    dtype: Literal["float32", "bfloat16"]
    precision: Precision
    origin: Mapping[str, object]


def replicated_model(
    devices: Devices,
    model: Glow,
    *,
    step: int,
    dtype: Literal["float32", "bfloat16"],
    precision: Precision,
) -> ReplicatedModel:
    """Make a model ready to measure.

    Args:
        devices: the devices to compute on.
        model: the model.
        step: the step of its checkpoint; it is part of the origin.
        dtype: the dtype of its coupling networks; it is part of the origin, too.
        precision: the precision of their convolutions; it is part of the origin, too.
    """
    origin = {
        "step": step,
        "weights_sha256": weights_digest(model),
        "architecture": dataclasses.asdict(model.config),
        "dtype": dtype,
        "precision": precision,
        "noise_seed": EVALUATION_SEED,
    }
    model = computing(model, dtype=dtype, precision=precision)
    return ReplicatedModel(devices, devices.replicate(model), dtype, precision, origin)


def likelihood_meter(flow: ReplicatedModel) -> Meter:
    """Bits/dim and each level's share: `bits_per_dim`, (B,), and `level_bits_per_dim`, (B, L)."""

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        found = likelihood_of_batch(flow.model, batch, flow.devices, pad_to=pad_to)
        return {
            "bits_per_dim": found.bits_per_dim,
            "level_bits_per_dim": found.level_bits_per_dim,
        }

    gives = ("bits_per_dim", "level_bits_per_dim")
    classes = label_classes(flow.model.config)
    return Meter(LIKELIHOOD, gives, flow.origin, measure, classes=classes)


def background_meter(flow: ReplicatedModel) -> Meter:
    """Bits/dim under a second model: `background_bits_per_dim`, (B,)."""
    own = likelihood_meter(flow)

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        return {BACKGROUND: own.measure(batch, pad_to)["bits_per_dim"]}

    return Meter("background", (BACKGROUND,), flow.origin, measure)


def ensemble_meter(flows: Sequence[ReplicatedModel]) -> Meter:
    """Bits/dim under each of M further models: `ensemble_bits_per_dim`, (B, M)."""
    meters = [likelihood_meter(flow) for flow in flows]

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        bits = [meter.measure(batch, pad_to)["bits_per_dim"] for meter in meters]
        return {ENSEMBLE: np.stack(bits, axis=1)}

    origin = {"ensemble": [flow.origin for flow in flows]}
    return Meter("ensemble", (ENSEMBLE,), origin, measure)


def gradient_meter(flow: ReplicatedModel) -> Meter:
    """||d log p / dx|| at the dequantised image, nats per unit of x: `gradient_norm`, (B,).

    The image is dequantised as the model was trained.

    No image's likelihood depends on another image, so the gradient of the batch's sum holds the
    gradient of each image.
    """

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        (norms,) = flow.devices.map_images(
            _gradient_norm, flow.model, batch.images, batch.indices, pad_to=pad_to
        )
        return {"gradient_norm": np.asarray(norms, np.float64)}

    return Meter("gradient_norm", ("gradient_norm",), flow.origin, measure)


def _gradient_norm(model: Glow, images: Array, indices: Array) -> tuple[jax.Array]:
    x, _ = model.redequantize(dequantized(model, images, indices))
    gradient = jax.grad(lambda x: jnp.sum(model.log_prob(x)))(x)
    return (jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2, 3))),)


def layer_norm_meter(flow: ReplicatedModel) -> Meter:
    """||d log p / d parameter|| of each of F layers' parameters: `layer_gradient_norms`, (B, F).

    They are in nats per unit of the parameter, at the image as the model is trained with it. A
    parameter of K stacked steps counts as K.
    """

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        (norms,) = flow.devices.map_images(
            _layer_norms, flow.model, batch.images, batch.indices, pad_to=pad_to
        )
        return {LAYER_NORMS: norms}

    return Meter("layer_norms", (LAYER_NORMS,), flow.origin, measure)


def _layer_norms(model: Glow, images: Array, indices: Array) -> tuple[jax.Array]:
    x, _ = model.redequantize(dequantized(model, images, indices))
    graph, params, buffers = nnx.split(model, nnx.Param, ...)

    def log_prob(params: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, buffers).log_prob(x[None])[0]

    def of_one(x: jax.Array) -> jax.Array:
        gradient = nnx.merge(graph, jax.grad(log_prob)(params, x), buffers)
        stacked = [nnx.state(level.steps, nnx.Param) for level in gradient.levels]
        single = [nnx.state(part, nnx.Param) for part in (gradient.splits, gradient.top_prior)]
        norms = [_norms(leaf) for leaf in jax.tree.leaves(stacked)]
        norms += [_norms(leaf[None]) for leaf in jax.tree.leaves(single)]
        return jnp.concatenate(norms)

    # One image after the other: the gradients of a batch would take a model's memory for each.
    return (jax.lax.map(of_one, x),)


def _norms(stacked: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(stacked), axis=tuple(range(1, stacked.ndim))))


def codec_meter(name: str, n_bits: int) -> Meter:
    """The length of each image in a format, in bits/dim: a number of that name, (B,)."""
    codec = CODECS[name]

    def measure(batch: Batch, _: int) -> dict[str, np.ndarray]:
        return {name: code_length(batch.images, codec, n_bits=n_bits)}

    origin = {"codec": name, "version": codec.version(), "n_bits": n_bits}
    return Meter(name, (name,), origin, measure, on_processor=True)
