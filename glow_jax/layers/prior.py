"""Priors: diagonal Gaussians over the latents (Kingma & Dhariwal 2018, section 3)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from glow_jax.kernels.products import PRECISION
from glow_jax.layers.bijection import sum_per_image
from glow_jax.layers.convolution import Padding, ZeroConv


class DiagonalGaussian(NamedTuple):
    """Independent normal distributions, one for each entry of a batch of latents.

    Attributes:
        mean: (B, H, W, C).
        logs: logarithms of the standard deviations, (B, H, W, C).
    """

    mean: jax.Array
    logs: jax.Array

    def log_prob(self, latent: jax.Array) -> jax.Array:
        """Log-density in nats: (B, H, W, C) -> (B,)."""
        squares = jnp.square(self.to_noise(latent))
        return sum_per_image(-0.5 * (math.log(2 * math.pi) + squares) - self.logs)

    def to_noise(self, latent: jax.Array) -> jax.Array:
        """Unit-normal coordinates of a latent: (z - mean) / sd."""
        return (latent - self.mean) * jnp.exp(-self.logs)

    def from_noise(self, noise: jax.Array) -> jax.Array:
        """The latent at unit-normal coordinates: mean + sd * noise."""
        return self.mean + jnp.exp(self.logs) * noise


class ZeroLinear(nnx.Module):
    """A linear layer, initialised to zero: y = (W x + bias) * exp(3 * logs)."""

    def __init__(self, inputs: int, outputs: int):
        """Start as the map that returns zero."""
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.logs = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, I) -> (B, O)."""
        y = jnp.matmul(x, self.kernel[...], precision=PRECISION) + self.bias[...]
        return y * jnp.exp(3 * self.logs[...])


class TopPrior(nnx.Module):
    """The prior of the top latent: unit normal, learned, conditional on a class label, or both.

    The learned part is a convolution of an all-zero input, as in the paper's code: it learns its
    bias. Its kernel matters only at the border, and only with a padding other than zeros.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        learn_top: bool,
        classes: int | None,
        padding: Padding = "zeros",
    ):
        """Start as the unit normal.

        Args:
            shape: (h, w, C) of the top latent.
            learn_top: whether the mean and deviation of each channel are learned.
            classes: the number of classes of a class-conditional prior; None if unconditional.
            padding: see `ZeroConv`.
        """
        channels = 2 * shape[2]
        self.shape = shape
        self.learned = ZeroConv(channels, channels, padding=padding) if learn_top else None
        self.from_label = None if classes is None else ZeroLinear(classes, channels)

    def __call__(self, batch: int, y: jax.Array | None, dtype: DTypeLike) -> DiagonalGaussian:
        """The prior of `batch` latents of `dtype`, given their labels (B, classes), if any."""
        height, width, channels = self.shape
        h = jnp.zeros((1, height, width, 2 * channels), dtype)
        if self.learned is not None:
            h = self.learned(h)
        if self.from_label is not None:
            assert y is not None, "the model checks this"
            h += self.from_label(y)[:, None, None, :]
        h = jnp.broadcast_to(h, (batch, height, width, 2 * channels))
        mean, logs = jnp.split(h, 2, axis=-1)  # halves here, even and odd in a split's prior
        return DiagonalGaussian(mean, logs)
