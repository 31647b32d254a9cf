"""Activation normalisation (Kingma & Dhariwal 2018, section 3.1)."""

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.layers.bijection import Bijection, constant_logdet, sum_dtype

# Glow-PyTorch's value: with another one, initialised models would differ from its models.
_EPSILON = 1e-6


class ActNorm(Bijection):
    """An affine map per channel; `initialise` makes it normalise one batch.

    Forward:   y = (x + bias) * exp(factor * logs)
    log|det|:  H * W * factor * sum(logs)
    Inverse:   x = y * exp(-factor * logs) - bias
    """

    def __init__(self, channels: int, *, scale: float = 1.0, factor: float = 1.0):
        """Start as the identity.

        Args:
            channels: the number of channels, C.
            scale: the standard deviation of each channel after `initialise`.
            factor: multiplies `logs`; with a larger one, training changes the scale faster.
        """
        self.bias = nnx.Param(jnp.zeros(channels))
        self.logs = nnx.Param(jnp.zeros(channels))
        self.scale = scale
        self.factor = factor

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        logs = jnp.sum(self.factor * self.logs[...], dtype=sum_dtype(x.dtype))
        return self.apply(x), constant_logdet(logs, x)

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        return y * jnp.exp(-self.factor * self.logs[...]) - self.bias[...]

    def apply(self, x: jax.Array) -> jax.Array:
        """`forward` without the log-determinant."""
        return (x + self.bias[...]) * jnp.exp(self.factor * self.logs[...])

    def fold(self, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias of one convolution that equals convolving by `kernel`, then this layer.

        (..., C) -> (..., C), (C,). Folding saves passes over the wide activations, and the scaling
        of those activations in the gradient.
        """
        scale = jnp.exp(self.factor * self.logs[...])
        return kernel * scale, self.bias[...] * scale

    def initialise(self, x: jax.Array) -> jax.Array:
        """Set the parameters so that the output of `x` has zero mean and deviation `scale`.

        Return that output. A constant channel gets a large but finite scale.
        """
        mean = jnp.mean(x, axis=(0, 1, 2))
        deviation = jnp.sqrt(jnp.mean(jnp.square(x - mean), axis=(0, 1, 2)))
        self.bias[...] = -mean
        self.logs[...] = jnp.log(self.scale / (deviation + _EPSILON)) / self.factor
        return self.apply(x)
