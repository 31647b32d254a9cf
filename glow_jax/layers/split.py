"""Split: factor out half of the channels (Dinh et al. 2017, section 3.6), with a learned prior."""

import jax
import jax.numpy as jnp

from glow_jax.layers.bijection import Bijection, sum_per_image
from glow_jax.layers.convolution import Padding, ZeroConv
from glow_jax.layers.prior import DiagonalGaussian


class Split(Bijection):
    """Keep the first half of the channels; whiten the second by a prior that sees the first.

    Forward:   x1, x2 = halves of x;  y = (x1, noise),  noise = (x2 - mean(x1)) / sd(x1)
    log|det|:  -sum(log(sd(x1)))
    Inverse:   x2 = mean(x1) + sd(x1) * noise

    Mean and log(sd) are the even and the odd output channels of a convolution of x1.
    """

    def __init__(self, channels: int, *, padding: Padding = "zeros"):
        """Split `channels` channels; the prior starts as the unit normal."""
        self.conv = ZeroConv(channels // 2, channels, padding=padding)

    def prior(self, kept: jax.Array) -> DiagonalGaussian:
        """The prior of the factored-out half, given the kept one, (B, H, W, C/2)."""
        h = self.conv(kept)  # (B, H, W, C)
        return DiagonalGaussian(h[..., 0::2], h[..., 1::2])

    def factor(self, x: jax.Array) -> tuple[jax.Array, jax.Array, DiagonalGaussian]:
        """(B, H, W, C) -> the kept half, the factored-out half, and the prior of the latter."""
        kept, latent = jnp.split(x, 2, axis=-1)
        return kept, latent, self.prior(kept)

    def forward(self, x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """(B, H, W, C) -> ((B, H, W, C/2), (B, H, W, C/2)), (B,)."""
        kept, latent, prior = self.factor(x)
        return (kept, prior.to_noise(latent)), -sum_per_image(prior.logs)

    def inverse(self, y: tuple[jax.Array, jax.Array]) -> jax.Array:
        """((B, H, W, C/2), (B, H, W, C/2)) -> (B, H, W, C)."""
        kept, noise = y
        return self.join(kept, self.prior(kept).from_noise(noise))

    def join(self, kept: jax.Array, latent: jax.Array) -> jax.Array:
        """Join the two halves again: the inverse of `factor`."""
        return jnp.concatenate([kept, latent], axis=-1)
