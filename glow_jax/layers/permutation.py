"""Fixed permutations of the channels: the two that the paper compares its 1x1 convolution with."""

import jax
import jax.numpy as jnp

from glow_jax.layers.bijection import Bijection, Buffer, sum_dtype


class Reverse(Bijection):
    """The channels in the opposite order (Dinh et al. 2015, arXiv 1410.8516).

    Forward:   y[..., c] = x[..., C - 1 - c]
    log|det|:  0
    Inverse:   the same map
    """

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        return x[..., ::-1], jnp.zeros(x.shape[0], sum_dtype(x.dtype))

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        return y[..., ::-1]


class Shuffle(Bijection):
    """The channels in a random order, drawn once and saved with the model.

    Forward:   y[..., c] = x[..., indices[c]]
    log|det|:  0
    Inverse:   x[..., indices[c]] = y[..., c]
    """

    def __init__(self, channels: int, *, key: jax.Array):
        """Draw the order of the `channels` from `key`."""
        self.indices = Buffer(jax.random.permutation(key, channels))

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        y = jnp.take(x, self.indices[...], axis=-1)
        return y, jnp.zeros(x.shape[0], sum_dtype(x.dtype))

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        return jnp.take(y, jnp.argsort(self.indices[...]), axis=-1)
