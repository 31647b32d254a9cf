"""Random shifts, flips and mutations, inside the compiled step."""

import jax
import jax.numpy as jnp


def augment(images: jax.Array, keys: jax.Array, *, flips: bool, shifts: bool = True) -> jax.Array:
    """Shift each image by up to 10 percent of its size, and mirror half of the images.

    As in Glow-PyTorch, the shift in each direction is a uniform draw from [-0.1, 0.1] x size,
    rounded to whole pixels. The uncovered edge is black.

    Args:
        images: uint8, (B, H, W, C).
        keys: one random key per image, (B,).
        flips: whether images may be mirrored.
        shifts: whether images may be shifted.

    Returns:
        uint8, (B, H, W, C).
    """
    return jax.vmap(lambda image, key: _augment_one(image, key, flips=flips, shifts=shifts))(
        images, keys
    )


def _augment_one(image: jax.Array, key: jax.Array, *, flips: bool, shifts: bool) -> jax.Array:
    height, width, _ = image.shape
    shift_key, flip_key = jax.random.split(key)
    if flips:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    if shifts:
        reach = 0.1 * jnp.array([height, width])
        shift = jnp.round(jax.random.uniform(shift_key, (2,), minval=-reach, maxval=reach))
        image = shift_image(image, shift.astype(jnp.int32))
    return image


def shift_image(image: jax.Array, shift: jax.Array) -> jax.Array:
    """Move the content of an image; the uncovered part is black.

    Args:
        image: (H, W, C).
        shift: pixels (down, right), (2,), integers of at most H and W.

    Returns:
        (H, W, C).
    """
    height, width, channels = image.shape
    padded = jnp.pad(image, ((height, height), (width, width), (0, 0)))
    start = (height - shift[0], width - shift[1], jnp.zeros_like(shift[0]))
    return jax.lax.dynamic_slice(padded, start, (height, width, channels))


def mutate(images: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """Replace each value of an image, with probability `rate`, by a uniform draw from 0..255.

    The background model of a likelihood ratio is trained on such images, which keep the statistics
    of the background and lose the meaning (Ren et al. 2019, arXiv 1906.02845). As in the authors'
    code, the channels of a pixel mutate independently.

    Args:
        images: uint8, (B, H, W, C).
        keys: one random key per image, (B,).
        rate: from 0 to 1; the authors use 0.1 to 0.3.

    Returns:
        uint8, (B, H, W, C).
    """

    def mutate_one(image: jax.Array, key: jax.Array) -> jax.Array:
        where_key, value_key = jax.random.split(key)
        values = jax.random.bits(value_key, image.shape, jnp.uint8)
        return jnp.where(jax.random.bernoulli(where_key, rate, image.shape), values, image)

    return jax.vmap(mutate_one)(images, keys)
