"""Activation normalisation (Kingma & Dhariwal 2018, section 3.1)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.layers.bijection import Bijection, constant_logdet, sum_dtype

# As in Glow-PyTorch: the parity of initialised models depends on it.
_EPSILON = 1e-6


class ActNorm(Bijection):
    """An affine map per channel, which starts as a normalisation of one batch.

    Forward:   y = (x + bias) * exp(logs)
    log|det|:  H * W * sum(logs)
    Inverse:   x = y * exp(-logs) - bias
    """

    def __init__(self, channels: int, *, scale: float = 1.0):
        """Start as the identity.

        Args:
            channels: the number of channels, C.
            scale: the standard deviation of each channel after `initialise`.
        """
        self.bias = nnx.Param(jnp.zeros(channels))
        self.logs = nnx.Param(jnp.zeros(channels))
        self.scale = scale

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        logs = jnp.sum(self.logs[...], dtype=sum_dtype(x.dtype))
        return self.apply(x), constant_logdet(logs, x)

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        return y * jnp.exp(-self.logs[...]) - self.bias[...]

    def apply(self, x: jax.Array) -> jax.Array:
        """`forward` without the log-determinant."""
        return _affine(x, self.bias[...], self.logs[...])

    def apply_relu(self, x: jax.Array) -> jax.Array:
        """relu(apply(x)), as coupling networks use it; its gradient keeps the output alone."""
        return _affine_relu(x, self.bias[...], self.logs[...])

    def initialise(self, x: jax.Array) -> jax.Array:
        """Set the parameters so that `x` leaves with zero mean and deviation `scale`; return that.

        A constant channel gets a large but finite scale.
        """
        mean = jnp.mean(x, axis=(0, 1, 2))
        deviation = jnp.sqrt(jnp.mean(jnp.square(x - mean), axis=(0, 1, 2)))
        self.bias[...] = -mean
        self.logs[...] = jnp.log(self.scale / (deviation + _EPSILON))
        return self.apply(x)


def _affine(x: jax.Array, bias: jax.Array, logs: jax.Array) -> jax.Array:
    return (x + bias) * jnp.exp(logs)


@jax.custom_vjp
def _affine_relu(x: jax.Array, bias: jax.Array, logs: jax.Array) -> jax.Array:
    """relu((x + bias) * exp(logs)), whose gradient needs nothing but the output, and logs."""
    return jax.nn.relu(_affine(x, bias, logs))


def _affine_relu_forward(x: jax.Array, bias: jax.Array, logs: jax.Array) -> Any:
    y = _affine_relu(x, bias, logs)
    return y, (y, logs)


def _affine_relu_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> Any:
    y, logs = kept
    gradient = jnp.where(y > 0, gradient, 0)
    x_gradient = gradient * jnp.exp(logs)
    over_positions = tuple(range(y.ndim - 1))
    return (
        x_gradient,
        jnp.sum(x_gradient, axis=over_positions),
        jnp.sum(gradient * y, axis=over_positions),
    )


_affine_relu.defvjp(_affine_relu_forward, _affine_relu_backward)
