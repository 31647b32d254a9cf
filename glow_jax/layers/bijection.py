"""What every layer of a flow is: an invertible map that knows its log-determinant."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


class Buffer(nnx.Variable):
    """State that is saved with a model but never trained or decayed (P, signs, shuffle indices)."""


class Bijection(nnx.Module):
    """An invertible map of a batch of images.

    Log-determinants are per image, in nats, and summed in at least float32.
    """

    def forward(self, x: jax.Array) -> tuple[Any, jax.Array]:
        """Map `x`, (B, H, W, C), to `(y, logdet)` with logdet of shape (B,)."""
        raise NotImplementedError

    def inverse(self, y: Any) -> jax.Array:
        """Map `y` back to the `x` that `forward` took."""
        raise NotImplementedError

    def prepare_inverse(self) -> "Bijection":
        """What computes `inverse`, all work that does not depend on `y` already done."""
        return self


def sum_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype in which log-determinants and likelihoods of `dtype` values are summed."""
    return jnp.promote_types(dtype, jnp.float32)


def sum_per_image(values: jax.Array) -> jax.Array:
    """Sum over everything but the batch, in at least float32: (B, ...) -> (B,)."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)), dtype=sum_dtype(values.dtype))


def constant_logdet(per_position: jax.Array, x: jax.Array) -> jax.Array:
    """Log-determinant of a map that does the same at every position: (), (B, H, W, C) -> (B,)."""
    batch, height, width, _ = x.shape
    return jnp.full((batch,), height * width * per_position, dtype=sum_dtype(x.dtype))
