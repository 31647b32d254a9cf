"""Activation normalisation (Kingma & Dhariwal 2018, section 3.1)."""

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
        return (x + self.bias[...]) * jnp.exp(self.logs[...])

    def fold(self, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias of the convolution that equals one by `kernel` and then this layer.

        (..., C) -> (..., C), (C,). It saves passes over the wide activations, and in the gradient
        all that scaling them takes.
        """
        factor = jnp.exp(self.logs[...])
        return kernel * factor, self.bias[...] * factor

    def initialise(self, x: jax.Array) -> jax.Array:
        """Set the parameters so that `x` leaves with zero mean and deviation `scale`; return that.

        A constant channel gets a large but finite scale.
        """
        mean = jnp.mean(x, axis=(0, 1, 2))
        deviation = jnp.sqrt(jnp.mean(jnp.square(x - mean), axis=(0, 1, 2)))
        self.bias[...] = -mean
        self.logs[...] = jnp.log(self.scale / (deviation + _EPSILON))
        return self.apply(x)
