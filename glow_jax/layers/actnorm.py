"""Activation normalisation (Kingma & Dhariwal 2018, section 3.1)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.layers.bijection import Bijection, constant_logdet, sum_dtype

# Glow-PyTorch's value: with another one, initialised models would differ from its models.
_EPSILON = 1e-6


class Moments(NamedTuple):
    """Mean and variance of each channel over images and positions, both (C,)."""

    mean: jax.Array
    variance: jax.Array


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
        self.normalise(moments(x))
        return self.apply(x)

    def normalise(self, of_input: Moments) -> None:
        """Set the parameters as `initialise` does for an input of these moments."""
        self.bias[...] = -of_input.mean
        deviation = jnp.sqrt(of_input.variance)
        self.logs[...] = jnp.log(self.scale / (deviation + _EPSILON)) / self.factor


def moments(x: jax.Array) -> Moments:
    """(B, H, W, C) -> (C,), (C,)."""
    mean = jnp.mean(x, axis=(0, 1, 2))
    return Moments(mean, jnp.mean(jnp.square(x - mean), axis=(0, 1, 2)))


def moments_of(function: Callable[[jax.Array], jax.Array], x: jax.Array, at_a_time: int) -> Moments:
    """The moments of `function(x)`, whose values exist for only so many images at a time.

    Args:
        function: of each image alone, (B, H, W, I) -> (B, H, W, C).
        x: images, (B, H, W, I).
        at_a_time: the number of images.
    """
    if len(x) <= at_a_time:
        return moments(function(x))
    of_image = jax.lax.map(lambda image: moments(function(image[None])), x, batch_size=at_a_time)
    mean = jnp.mean(of_image.mean, axis=0)
    # The variance within images, and that of their means.
    variance = jnp.mean(of_image.variance + jnp.square(of_image.mean - mean), axis=0)
    return Moments(mean, variance)
