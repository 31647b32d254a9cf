"""The logistic function, from the real line to (0, 1)."""

import jax
import jax.numpy as jnp

from glow_jax.layers.bijection import Bijection, sum_per_image


class Sigmoid(Bijection):
    """The logistic function of every value.

    Forward:   y = 1 / (1 + exp(-x))
    log|det|:  sum(log(y) + log(1 - y))
    Inverse:   x = log(y) - log(1 - y)
    """

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        # Of x, because a y that is rounded to 0 or 1 has no logarithm of both.
        return jax.nn.sigmoid(x), sum_per_image(jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x))

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        return jnp.log(y) - jnp.log1p(-y)
