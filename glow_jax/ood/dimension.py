"""Measuring local intrinsic dimension: Kamkari et al. 2024, arXiv 2403.18910."""

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.data.batching import Batch
from glow_jax.evaluation.likelihood import dequantized, likelihood_of_batch
from glow_jax.latents import flat_noise
from glow_jax.model import Glow
from glow_jax.ood.images import Images
from glow_jax.ood.measure import Meter, ReplicatedModel
from glow_jax.ood.scores import LID
from glow_jax.typing import Array

# Rows of a Jacobian at a time: each takes the memory of an image's gradient.
_ROWS = 64
_NEIGHBOURS = 100
# A direction counts if its variance is above this share of the largest (Fukunaga & Olsen 1971).
_SHARE = 0.05


def lid_meter(flow: ReplicatedModel, training: Images, most: int) -> Meter:
    """Bits/dim, singular values of the decoder's Jacobian, and dimension of the neighbourhood.

    They are `lid_bits_per_dim`, (B,); `singular_values`, (B, D), of d x / d z with unit-normal z;
    and `neighbourhood_dimension`, (B,), the dimension of the training images near each image.

    Args:
        flow: the model.
        training: training images.
        most: images of each set to measure at most: each takes D gradients.
    """

    def measure(batch: Batch, pad_to: int) -> dict[str, np.ndarray]:
        found = likelihood_of_batch(flow.model, batch, flow.devices, pad_to=pad_to)
        values = [
            _singular_values(flow, batch.images[one], batch.indices[one])
            for one in np.split(np.arange(len(batch.indices)), len(batch.indices))
        ]
        dimensions = _local_dimensions(batch.images, training)
        return dict(zip(LID, (found.bits_per_dim, np.stack(values), dimensions), strict=True))

    origin = {**flow.origin, "training_sha256": training.fingerprint}
    return Meter("lid", LID, origin, measure, most=most)


def _singular_values(flow: ReplicatedModel, image: np.ndarray, index: np.ndarray) -> np.ndarray:
    (jacobian,) = flow.devices.map_images(_encoder_jacobian, flow.model, image, index)
    if not np.isfinite(jacobian).all():
        return np.full(jacobian.shape[1], np.nan)
    # The decoder's Jacobian is the inverse of the encoder's.
    with np.errstate(divide="ignore"):
        return 1 / np.linalg.svd(jacobian[0], compute_uv=False)[::-1]


def _encoder_jacobian(model: Glow, images: Array, indices: Array) -> tuple[jax.Array]:
    """D noise / d x at one image, (1, D, D)."""
    x, _ = model.redequantize(dequantized(model, images, indices))

    def noise(x: jax.Array) -> jax.Array:
        return flat_noise(model.encode(x).noise)[0]

    _, pull_back = jax.vjp(noise, x)
    rows = jnp.eye(model.config.dimensions, dtype=x.dtype)
    return (jax.lax.map(lambda row: jnp.ravel(pull_back(row)[0]), rows, batch_size=_ROWS)[None],)


def _local_dimensions(images: np.ndarray, training: Images) -> np.ndarray:
    """The principal components that the 100 nearest training images of each image need."""
    from sklearn.neighbors import NearestNeighbors

    known = training.split[np.arange(len(training.split))].images
    known = known.reshape(len(known), -1).astype(np.float64)
    search = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(known))).fit(known)
    near = search.kneighbors(images.reshape(len(images), -1), return_distance=False)
    return np.array([_principal_components(known[places]) for places in near], np.float64)


def _principal_components(points: np.ndarray) -> int:
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    return int(np.sum(spread > _SHARE * spread[0]))
