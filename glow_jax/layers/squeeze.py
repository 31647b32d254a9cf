"""Squeeze: trade resolution for channels (Dinh et al. 2017, arXiv 1605.08803, section 3.6)."""

import jax
import jax.numpy as jnp

from glow_jax.layers.bijection import Bijection, sum_dtype


class Squeeze(Bijection):
    """Turn every 2 x 2 block of positions into one position with four times the channels.

    Forward:   y[h, w, 4c + 2i + j] = x[2h + i, 2w + j, c]
    log|det|:  0
    Inverse:   x[2h + i, 2w + j, c] = y[h, w, 4c + 2i + j]
    """

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H/2, W/2, 4C)."""
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        x = x.transpose(0, 1, 3, 5, 2, 4)  # (B, H/2, W/2, C, 2, 2)
        y = x.reshape(batch, height // 2, width // 2, 4 * channels)
        return y, jnp.zeros(batch, sum_dtype(x.dtype))

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H/2, W/2, 4C) -> (B, H, W, C)."""
        batch, height, width, channels = y.shape
        y = y.reshape(batch, height, width, channels // 4, 2, 2)
        y = y.transpose(0, 1, 4, 2, 5, 3)  # (B, H/2, 2, W/2, 2, C)
        return y.reshape(batch, 2 * height, 2 * width, channels // 4)
