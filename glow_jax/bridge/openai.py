"""The latents of openai/glow, which its files hold flat: `z_manipulate.npy`, `celeba-hq/z.npy`.

A row is the unit-normal coordinates of one image: level 0, the finest, first and the top latent
last, each (h, w, c) read row by row.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError
from glow_jax.typing import Array


def flat_noise(noise: Sequence[Array]) -> jax.Array:
    """Put unit-normal coordinates into one row for each image.

    Args:
        noise: one array (B, h, w, c) for each level, finest first, as `Code.noise`.

    Returns:
        (B, D), where D is the number of values in an image.

    Raises:
        GlowError: a level is not (B, h, w, c), or levels differ in B.
    """
    shapes = [jnp.shape(entry) for entry in noise]
    if len({shape[:1] for shape in shapes}) != 1 or any(len(shape) != 4 for shape in shapes):
        raise GlowError(
            f"noise has levels of shapes {shapes}; each must be (B, h, w, c), of one B."
        )
    rows = [
        jnp.asarray(entry).reshape(shape[0], math.prod(shape[1:]))
        for entry, shape in zip(noise, shapes, strict=True)
    ]
    return jnp.concatenate(rows, axis=1)


def levels_of(flat: Array, config: ModelConfig) -> tuple[jax.Array, ...]:
    """The inverse of `flat_noise`.

    Args:
        flat: (B, D).
        config: the architecture, which tells the shapes of the levels.

    Returns:
        One array (B, h, w, c) for each level, finest first; `Glow.decode_noise` takes them.

    Raises:
        GlowError: D is not the number of values in an image of the model.
    """
    flat = jnp.asarray(flat)
    if flat.ndim != 2 or flat.shape[1] != config.dimensions:
        raise GlowError(
            f"flat has shape {flat.shape}; latents of this model are (B, {config.dimensions})."
        )
    levels, begin = [], 0
    for height, width, channels in config.latent_shapes:
        end = begin + height * width * channels
        levels.append(flat[:, begin:end].reshape(len(flat), height, width, channels))
        begin = end
    return tuple(levels)
