"""Pixels to continuous values for a flow, and back; log-likelihoods to bits/dim."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from glow_jax.compiler import quick_jit
from glow_jax.errors import GlowError, InputTypeError
from glow_jax.typing import Array

# Multiples of 2^-24 in [-0.5, 0.5) are exact in float32, and adding 0.5 to them is exact too. Noise
# on this grid can therefore never be rounded up into the next bin.
_GRID_BITS = 24


def check_n_bits(n_bits: int) -> None:
    """Raise `GlowError` unless `n_bits` is a whole number from 1 to 8."""
    if type(n_bits) is not int or n_bits not in range(1, 9):
        raise GlowError(f"n_bits is {n_bits}; an 8-bit image can be read with 1 to 8 bits.")


def example_keys(seed: ArrayLike, draw: ArrayLike, indices: Array) -> jax.Array:
    """One key per image, a function of seed, draw and the image's index: (B,) -> (B,).

    An image's noise then depends on neither its batch nor its device.
    """
    key = jax.random.fold_in(jax.random.key(seed), draw)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def dequantize(pixels: Array, keys: Array, *, n_bits: int = 8) -> jax.Array:
    """Turn pixels into continuous values: add uniform noise inside each pixel's bin.

    x = floor(pixels / 2^(8 - n_bits)) / 2^n_bits - 0.5 + u,   u ~ U[0, 1 / 2^n_bits)

    (Theis et al. 2016, arXiv 1511.01844; n_bits as in Kingma & Dhariwal 2018, section 5.) The
    noise is drawn on a grid of 2^-24, on which float32 is exact, so `to_pixels` returns every bin
    unchanged.

    Args:
        pixels: uint8 images, (B, H, W, C), or (H, W, C) with one key.
        keys: one random key, or one per image, (B,); with one per image, the noise does not depend
            on the batch that the image is in.
        n_bits: the bits kept of each pixel, 1 to 8.

    Returns:
        float32 values in [-0.5, 0.5) with the shape of `pixels`.

    Raises:
        GlowError: `pixels` is not uint8, `n_bits` is out of range, or the keys do not fit.
    """
    check_n_bits(n_bits)
    if pixels.dtype != jnp.uint8:
        raise InputTypeError(f"dequantize takes uint8 pixels, not {pixels.dtype}.")
    given = jnp.asarray(keys)
    typed = jnp.issubdtype(given.dtype, jax.dtypes.prng_key)
    random_keys = given if typed else jax.random.wrap_key_data(given)

    one_per_image = pixels.ndim == 4 and random_keys.shape == pixels.shape[:1]
    if random_keys.ndim != 0 and not one_per_image:
        raise GlowError(
            f"dequantize takes one key or one per image, got {random_keys.shape} keys for pixels "
            f"of shape {pixels.shape}."
        )
    return _dequantize(pixels, random_keys, n_bits)


@partial(quick_jit, static_argnames=("n_bits",))
def _dequantize(pixels: Array, keys: jax.Array, n_bits: int) -> jax.Array:
    noise_bits = _GRID_BITS - n_bits

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.bits(key, shape, jnp.uint32) >> (32 - noise_bits)

    if keys.ndim == 0:
        noise = draw(keys, pixels.shape)
    else:
        noise = jax.vmap(lambda key: draw(key, pixels.shape[1:]))(keys)
    bins = jnp.asarray(pixels).astype(jnp.uint32) >> (8 - n_bits)
    return ((bins << noise_bits) + noise).astype(jnp.float32) * 2.0**-_GRID_BITS - 0.5


def places_in_bins(x: jax.Array, *, n_bits: int) -> tuple[jax.Array, jax.Array]:
    """The pixels of dequantised images, and where each value lies in its pixel's bin.

    Args:
        x: images, as `dequantize` returns them, of any shape.
        n_bits: the bits of each pixel, 1 to 8.

    Returns:
        The centres of the bins, in [-0.5, 0.5), and the places in them: 0 at the lower edge, 1 at
        the upper, and half a step of the noise's grid away from both.
    """
    values = (x + 0.5) * 2**n_bits
    bins = jnp.floor(values)
    half = 2.0 ** (n_bits - _GRID_BITS - 1)
    return (bins + 0.5) * 2.0**-n_bits - 0.5, jnp.clip(values - bins + half, half, 1 - half)


def in_bins(x: jax.Array, places: jax.Array, *, n_bits: int) -> jax.Array:
    """Move values to other places in their bins: the inverse of `places_in_bins`.

    Each is rounded to the nearest of the grid of `dequantize`, so that `to_pixels` returns every
    bin unchanged; the gradient is that of the place before rounding.

    Args:
        x: images, as `dequantize` returns them.
        places: in [0, 1], with the shape of `x`.
        n_bits: the bits of each pixel, 1 to 8.

    Returns:
        Images of the same pixels, with the shape of `x`, in the wider of both dtypes.
    """
    bins = jnp.floor((x + 0.5) * 2**n_bits)
    in_bin = 2 ** (_GRID_BITS - n_bits)  # values of the grid
    noise = jnp.clip(jnp.round(places * in_bin), 0, in_bin - 1)
    moved = jax.lax.stop_gradient((bins * in_bin + noise) * 2.0**-_GRID_BITS - 0.5)
    return moved + (places - jax.lax.stop_gradient(places)) * 2.0**-n_bits


def to_pixels(x: Array, *, n_bits: int = 8) -> jax.Array:
    """Turn continuous values into pixels: each value becomes the bin that it lies in.

    Args:
        x: floating-point values; [-0.5, 0.5) covers all bins, and values outside are clipped.
        n_bits: the bits of each pixel, 1 to 8; the 2^n_bits bins are spread over 0..255.

    Returns:
        uint8 pixels with the shape of `x`.

    Raises:
        GlowError: `x` is not floating-point or `n_bits` is out of range.
    """
    check_n_bits(n_bits)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputTypeError(f"to_pixels takes floating-point values, not {x.dtype}.")
    return _to_pixels(x, n_bits)


@partial(quick_jit, static_argnames=("n_bits",))
def _to_pixels(x: Array, n_bits: int) -> jax.Array:
    top = 2**n_bits - 1
    values = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
    bins = jnp.clip(jnp.floor((values + 0.5) * 2**n_bits), 0, top)
    # Rounding to the nearest keeps the bin: pixels >> (8 - n_bits) gives it back.
    return jnp.round(bins * (255 / top)).astype(jnp.uint8)


def bits_per_dim(log_prob: Array, image_shape: tuple[int, int, int], *, n_bits: int = 8) -> Array:
    """Bits per dimension of quantised images: (n_bits log 2 - log p(x) / D) / log 2.

    Args:
        log_prob: log-density in nats of images dequantised with `n_bits`, of any shape.
        image_shape: (H, W, C); D = H * W * C.
        n_bits: the bits of each pixel, 1 to 8.

    Returns:
        Bits/dim with the shape of `log_prob`: in expectation over the noise, an upper bound on the
        discrete model's (Theis et al. 2016).
    """
    check_n_bits(n_bits)
    return n_bits - log_prob / (math.prod(image_shape) * math.log(2))
