"""Variational dequantisation (Ho et al. 2019, arXiv 1902.00275): noise given the image."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.config import ModelConfig
from glow_jax.flow import ConditionalStep, Level
from glow_jax.layers import Sigmoid
from glow_jax.pixels import in_bins, places_in_bins

_STEPS = 4
# The standard deviation of the logarithm of the odds of a uniform number. With it, the noise that
# an untrained flow gives is uniform or close to it.
_LOGISTIC_DEVIATION = math.pi / math.sqrt(3)


class Dequantizer(nnx.Module):
    """A flow that moves uniform noise inside each pixel's bin, given the image.

    With v the place of each value in its bin, in (0, 1), and the pixels as context,

        u = sigmoid(level(logit(v); pixels))

    A uniform v has density 1, so log q(u | pixels) = -log|det du/dv|, and the bits of the discrete
    image under a flow p are at most

        E[-log p(pixels + u) - log|det du/dv|] / log 2.

    Attributes:
        n_bits: the bits of each pixel.
        level: a squeeze and conditional steps; its first channels are the image's.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        """Build the flow for an architecture, with as wide coupling networks.

        Args:
            config: the architecture of p.
            rngs: random keys of the parameters.
        """
        channels = 4 * config.image_shape[2]  # after the squeeze

        def build_step(rngs: nnx.Rngs) -> ConditionalStep:
            return ConditionalStep(
                channels,
                given=channels,
                hidden_channels=config.hidden_channels,
                actnorm_scale=_LOGISTIC_DEVIATION,
                rngs=rngs,
            )

        self.n_bits = config.n_bits
        self.level = Level(build_step, K=_STEPS, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Move the noise of dequantised images.

        Args:
            x: images with uniform noise, (B, H, W, C), as `dequantize` returns them.

        Returns:
            Images of the same pixels, (B, H, W, C), and log|det du/dv| in nats, (B,).
        """
        context, v = places_in_bins(x, n_bits=self.n_bits)
        logit = Sigmoid().inverse(v)
        _, logit_logdet = Sigmoid().forward(logit)  # of the inverse of logit
        y, level_logdet = self.level.forward(jnp.concatenate([context, logit], axis=-1))
        u, sigmoid_logdet = Sigmoid().forward(self._moved(y))
        return in_bins(x, u, n_bits=self.n_bits), level_logdet + sigmoid_logdet - logit_logdet

    def initialise(self, x: jax.Array) -> jax.Array:
        """Initialise every actnorm from `x`, as for a call; return the images."""
        context, v = places_in_bins(x, n_bits=self.n_bits)
        y = self.level.initialise(jnp.concatenate([context, Sigmoid().inverse(v)], axis=-1))
        return in_bins(x, jax.nn.sigmoid(self._moved(y)), n_bits=self.n_bits)

    def _moved(self, y: jax.Array) -> jax.Array:
        """The part of the level's output that is no context: (B, H/2, W/2, 8C) -> (B, H, W, C)."""
        joint = self.level.squeeze.inverse(y)
        return jnp.split(joint, 2, axis=-1)[1]
