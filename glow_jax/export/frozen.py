"""A model for inference alone: whatever depends on the weights and nothing else is computed once.

A program of it inverts no matrix and takes no determinant, so it needs no kernels of a platform's
own and no operations that only some formats have.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.flow import Level
from glow_jax.layers import Bijection, Buffer
from glow_jax.layers.bijection import constant_logdet
from glow_jax.layers.convolution import conv1x1
from glow_jax.model import Glow, computing


class FixedMixing(Bijection):
    """A linear map of the channels that knows its inverse and its log-determinant.

    Forward:   y[b, h, w] = W x[b, h, w]
    log|det|:  H * W * log|det W|
    Inverse:   x = V y + V (y - W V y),  V = W^-1, where the second term corrects the rounding of V
    """

    def __init__(self, mixing: Bijection, channels: int):
        """Ask a linear map of `channels` channels for its matrices: images of the unit vectors."""
        unit_vectors = jnp.eye(channels)[None, None]  # (1, 1, C, C): C positions
        image, _ = mixing.forward(unit_vectors)
        _, logdet = mixing.forward(unit_vectors[:, :, :1])  # at one position
        self.kernel = Buffer(image[0, 0])  # (C in, C out)
        self.inverse_kernel = Buffer(mixing.inverse(unit_vectors)[0, 0])  # (C out, C in)
        self.logdet = Buffer(logdet[0])  # ()

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        return conv1x1(x, self.kernel[...]), constant_logdet(self.logdet[...], x)

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        kernel, inverse = self.kernel[...], self.inverse_kernel[...]
        x = conv1x1(y, inverse)
        return x + conv1x1(y - conv1x1(x, kernel), inverse)


def frozen(model: Glow) -> Glow:
    """The same model with fixed 1x1 maps, in float32; it has no gradient worth taking.

    Args:
        model: left as it is.
    """
    other = computing(model, memory="fast", dtype="float32", precision="highest")
    for module in [module for _, module in nnx.iter_modules(other)]:
        if isinstance(module, Level):
            steps = module.steps
            steps.permutation = _fixed(steps.permutation, steps.actnorm.bias.shape[-1], module.K)
    return other


def _fixed(stacked: Bijection, channels: int, length: int) -> FixedMixing:
    """The fixed forms of `length` stacked maps, stacked."""
    fixed = jax.vmap(lambda mixing: FixedMixing(mixing, channels), axis_size=length)
    return jax.jit(fixed)(stacked)
