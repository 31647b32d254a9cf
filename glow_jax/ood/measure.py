"""Measuring each image: by the flow, by a second flow, and by image formats."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.data.batching import Batch
from glow_jax.devices import Devices
from glow_jax.evaluation.likelihood import (
    EVALUATION_SEED,
    dequantized,
    label_classes,
    likelihood_of_batch,
)
from glow_jax.model import Glow
from glow_jax.ood.complexity import CODECS, code_length
from glow_jax.ood.scores import Score
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
        classes: the number of classes of the labels that it needs; 0 if it needs none.
    """

    name: str
    gives: tuple[str, ...]
    origin: Mapping[str, object]
    measure: Measure
    classes: int = 0


@dataclass(frozen=True)
class ReplicatedModel:
    """A model on its devices.

    Attributes:
        devices: the devices.
        model: the model, replicated over them.
        origin: what its numbers depend on.
    """

    devices: Devices
    model: Glow
    origin: Mapping[str, object]


def replicated_model(
    devices: Devices, model: Glow, *, step: int, dtype: str, precision: str
) -> ReplicatedModel:
    """Make a model ready to measure.

    Args:
        devices: the devices to compute on.
        model: the model, set up as it should compute.
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
    return ReplicatedModel(devices, devices.replicate(model), origin)


def weights_digest(model: Glow) -> str:
    """SHA-256 of a model's arrays: what is kept of one model is not taken for another's."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def likelihood_meter(flow: ReplicatedModel) -> Meter:
    """Bits/dim and each level's share: `bits_per_dim`, (B,), and `level_bits_per_dim`, (B, L)."""

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        found = likelihood_of_batch(flow.model, batch, flow.devices, pad_to=pad_to)
        return {
            "bits_per_dim": found.bits_per_dim,
            "level_bits_per_dim": found.level_bits_per_dim,
        }

    gives = ("bits_per_dim", "level_bits_per_dim")
    return Meter(LIKELIHOOD, gives, flow.origin, measure, label_classes(flow.model.config))


def background_meter(flow: ReplicatedModel) -> Meter:
    """Bits/dim under a second model: `background_bits_per_dim`, (B,)."""
    own = likelihood_meter(flow)

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        return {"background_bits_per_dim": own.measure(batch, pad_to)["bits_per_dim"]}

    return Meter("background", ("background_bits_per_dim",), flow.origin, measure)


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


def codec_meter(name: str, n_bits: int) -> Meter:
    """The length of each image in a format, in bits/dim: a number of that name, (B,)."""
    codec = CODECS[name]

    def measure(batch: Batch, _: int) -> dict[str, np.ndarray]:
        return {name: code_length(batch.images, codec, n_bits=n_bits)}

    origin = {"codec": name, "version": codec.version(), "n_bits": n_bits}
    return Meter(name, (name,), origin, measure)


def meters_for(
    scores: Sequence[Score], flow: ReplicatedModel, background: ReplicatedModel | None
) -> list[Meter]:
    """The meters whose numbers at least one score needs."""
    needed = {name for score in scores for name in score.needs}
    meters = [likelihood_meter(flow)] if needed & {"bits_per_dim", "level_bits_per_dim"} else []
    if "background_bits_per_dim" in needed and background is not None:
        meters.append(background_meter(background))
    if "gradient_norm" in needed:
        meters.append(gradient_meter(flow))
    n_bits = flow.model.config.n_bits
    return meters + [codec_meter(name, n_bits) for name in CODECS if name in needed]
