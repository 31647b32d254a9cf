"""The base class of every layer of a flow: an invertible map that knows its log-determinant."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


class Buffer(nnx.Variable):
    """Saved with a model but never trained or decayed: P, signs, shuffle indices."""


class Bijection(nnx.Module):
    """An invertible map of a batch of images.

    Log-determinants are per image, in nats, and are summed in at least float32.
    """

    def forward(self, x: jax.Array) -> tuple[Any, jax.Array]:
        """Map `x`, (B, H, W, C), to `(y, logdet)`, logdet of shape (B,)."""
        raise NotImplementedError

    def inverse(self, y: Any) -> jax.Array:
        """Map `y` back to the `x` that `forward` took."""
        raise NotImplementedError

    def prepare_forward(self) -> "Bijection":
        """A bijection of the same map that has computed all that `forward` needs beside `x`.

        It may hold more arrays than this one. A gradient through both calls, or its `gradient`, is
        that of this one's parameters.
        """
        return self

    def prepare_inverse(self) -> "Bijection":
        """A bijection of the same map that has computed all that `inverse` needs beside `y`.

        It may hold more arrays than this one. Its `gradient` is still the gradient of this one's
        parameters, in this one's state.
        """
        return self

    def gradient(
        self, x: jax.Array, y_gradient: jax.Array, logdet_gradient: jax.Array
    ) -> tuple[jax.Array, nnx.State]:
        """Pull the gradients of both outputs of `forward` back to `x` and to the parameters.

        Args:
            x: the input, (B, H, W, C).
            y_gradient: the gradient of the output, with its shape.
            logdet_gradient: the gradient of the log-determinant, (B,).

        Returns:
            The gradient of `x`, and that of the parameters as a state of `nnx.Param`.
        """
        graph, params, buffers = nnx.split(self, nnx.Param, ...)
        _, pull_back = jax.vjp(
            lambda params, x: nnx.merge(graph, params, buffers).forward(x), params, x
        )
        gradient, x_gradient = pull_back((y_gradient, logdet_gradient))
        return x_gradient, gradient

    def inverse_and_gradient(
        self, y: jax.Array, y_gradient: jax.Array, logdet_gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array, nnx.State]:
        """`inverse`, then `gradient` at its result: a gradient then needs only the output.

        Returns:
            The input, its gradient, and that of the parameters as a state of `nnx.Param`.
        """
        x = self.inverse(y)
        return x, *self.gradient(x, y_gradient, logdet_gradient)


def join_gradients(gradients: dict[str, nnx.State]) -> nnx.State:
    """The gradient of a bijection, from the gradients of its attributes by name."""
    # An attribute without parameters has no entry in the bijection's state.
    return nnx.State({name: state.raw_mapping for name, state in gradients.items() if state})


def sum_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype in which log-determinants and likelihoods of `dtype` values are summed."""
    return jnp.promote_types(dtype, jnp.float32)


def sum_per_image(values: jax.Array) -> jax.Array:
    """Sum over everything but the batch, in at least float32: (B, ...) -> (B,)."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)), dtype=sum_dtype(values.dtype))


def constant_logdet(per_position: jax.Array, x: jax.Array) -> jax.Array:
    """Log-determinant of a map that is the same at every position: (), (B, H, W, C) -> (B,)."""
    batch, height, width, _ = x.shape
    return jnp.full((batch,), height * width * per_position, dtype=sum_dtype(x.dtype))
