"""Moves in latent space: between two images, towards a class, one level at a time.

All functions act on `noise`, the unit-normal coordinates of a `Code`: one array (B, h, w, c) for
each level, finest first. `Glow.decode_noise` turns the result into images.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError
from glow_jax.layers.squeeze import Squeeze
from glow_jax.model import Code, Glow
from glow_jax.typing import Array

Noise = tuple[Array, ...]

# Below this squared sine of the angle, an arc and its chord agree to single precision.
_STRAIGHT = 1e-6


def lerp(start: Noise, end: Noise, t: Array | float) -> Noise:
    """Go from `start` to `end` on a straight line: (1 - t) start + t end.

    Halfway between two draws of D unit normals, the norm is smaller than that of either draw by a
    factor of about sqrt(2). Almost no draw has so small a norm.

    Args:
        start: noise of B images, or of one.
        end: noise of B images, or of one.
        t: 0 for `start`, 1 for `end`, both exactly; a number, or one for each image, (B,).

    Returns:
        Noise of B images.
    """

    def mix(one: jax.Array, other: jax.Array) -> jax.Array:
        return _for_entries(1 - t, one) * one + _for_entries(t, other) * other

    return jax.tree.map(mix, start, end)


def slerp(start: Noise, end: Noise, t: Array | float) -> Noise:
    """Go from `start` to `end` on an arc; the entries of all levels form one vector.

    With the angle w between a = `start` and b = `end`, it is::

        r(t) (sin((1 - t) w) / sin(w)  a / |a|  +  sin(t w) / sin(w)  b / |b|)
        r(t) = (1 - t) |a| + t |b|

    This is the shortest path on the sphere (Shoemake 1985), with a radius that changes linearly
    from one norm to the other (White 2016, arXiv 1609.04468, for latents). For parallel vectors the
    arc is the straight line. Opposite vectors have no shortest arc; their path goes through zero.

    Args:
        start: noise of B images, or of one; not zero.
        end: noise of B images, or of one; not zero.
        t: 0 for `start`, 1 for `end`, both exactly; a number, or one for each image, (B,).

    Returns:
        Noise of B images, of norm r(t).
    """
    length_start, length_end = jnp.sqrt(_dot(start, start)), jnp.sqrt(_dot(end, end))
    cosine = _dot(start, end) / (length_start * length_end)
    straight = 1 - jnp.square(cosine) < _STRAIGHT
    # At angle 0 the branch that is not chosen would still have an infinite gradient.
    angle = jnp.arccos(jnp.where(straight, 0.0, cosine))
    share_start = jnp.where(straight, 1 - t, jnp.sin((1 - t) * angle) / jnp.sin(angle))
    share_end = jnp.where(straight, t, jnp.sin(t * angle) / jnp.sin(angle))
    radius = (1 - t) * length_start + t * length_end
    of_start, of_end = share_start * (radius / length_start), share_end * (radius / length_end)

    def mix(one: jax.Array, other: jax.Array) -> jax.Array:
        return _for_entries(of_start, one) * one + _for_entries(of_end, other) * other

    return jax.tree.map(mix, start, end)


def class_direction(noise: Noise, labels: np.ndarray, start: int, end: int) -> Noise:
    """The direction from one class to another: mean noise of `end` minus mean noise of `start`.

    (Kingma & Dhariwal 2018, section 6, who use it between images with and without an attribute.)

    Args:
        noise: noise of B images.
        labels: their class numbers, (B,).
        start: the class to come from.
        end: the class to go to.

    Returns:
        The direction, noise of one image.

    Raises:
        GlowError: one of the classes has no image.
    """
    for label in (start, end):
        if not np.any(labels == label):
            raise GlowError(f"None of the {len(labels)} images is of class {label}.")

    def mean(entry: jax.Array, label: int) -> jax.Array:
        return entry[labels == label].mean(axis=0, keepdims=True)

    return jax.tree.map(lambda entry: mean(entry, end) - mean(entry, start), noise)


def mean_noise(batches: Iterable[Noise]) -> Noise:
    """The mean noise of more images than fit in memory; sums are taken in float64.

    The difference of two of them is a direction, as `class_direction` returns it.

    Args:
        batches: noise of some images each.

    Returns:
        Noise of one image, float32.

    Raises:
        GlowError: there is no image.
    """
    total: list[np.ndarray] = []
    count = 0
    for noise in batches:
        sums = [np.asarray(entry, np.float64).sum(axis=0, keepdims=True) for entry in noise]
        total = [np.add(*pair) for pair in zip(total, sums, strict=True)] if total else sums
        count += len(noise[0])
    if not count:
        raise GlowError("There is no image to take a mean of.")
    return tuple(jnp.asarray(entry / count, jnp.float32) for entry in total)


def move(noise: Noise, direction: Noise, amount: Array | float) -> Noise:
    """Go along a direction: noise + amount * direction.

    Args:
        noise: noise of B images, or of one.
        direction: as `class_direction` returns it.
        amount: a number, or one for each image, (B,); at 0, the noise stays as it is.

    Returns:
        Noise of B images.
    """
    return jax.tree.map(
        lambda entry, way: entry + _for_entries(amount, way) * way, noise, direction
    )


def at_levels(before: Noise, after: Noise, levels: Sequence[bool] | Array) -> Noise:
    """Let a change touch some levels only: `after` there, and `before` at the others.

    Args:
        before: noise of B images, or of one.
        after: noise of B images.
        levels: whether each level changes, finest first, (L,).

    Returns:
        Noise of B images.
    """
    return tuple(
        jnp.where(touched, new, jnp.broadcast_to(old, new.shape))
        for touched, old, new in zip(levels, before, after, strict=True)
    )


def level_by_level(noise: Noise) -> Noise:
    """From no noise to all of it: the top level's comes first, the finest level's last.

    Decoded, the rows show what each level adds: a level that is still missing is at its mean.

    Args:
        noise: noise of one image.

    Returns:
        Noise of L + 1 images; the first is zero, the last is `noise`.
    """
    count = len(noise)
    # Row r has the noise of the r coarsest levels.
    return tuple(
        jnp.concatenate([(row > count - 1 - level) * entry for row in range(count + 1)])
        for level, entry in enumerate(noise)
    )


def as_image(noise: Noise) -> jax.Array:
    """Lay noise out as the image that it is decoded to, as if no step changed anything.

    Every value is at the place of the pixels that it has most to do with.

    Args:
        noise: noise of B images.

    Returns:
        (B, H, W, C).
    """
    squeeze = Squeeze()
    x = squeeze.inverse(jnp.asarray(noise[-1]))
    for entry in reversed(noise[:-1]):
        x = squeeze.inverse(jnp.concatenate([x, entry], axis=-1))
    return x


def resample_level(noise: Noise, level: int, key: Array, *, temperature: float = 1.0) -> Noise:
    """Redraw one level's noise and keep the other levels': the change shows what the level holds.

    Args:
        noise: noise of B images.
        level: from 0, the finest, to L - 1, the top.
        key: random key.
        temperature: standard deviation of the draw.

    Returns:
        Noise of B images.

    Raises:
        GlowError: there is no such level.
    """
    if not 0 <= level < len(noise):
        raise GlowError(f"level is {level}; this noise has levels 0 to {len(noise) - 1}.")
    drawn = temperature * jax.random.normal(key, noise[level].shape, noise[level].dtype)
    return (*noise[:level], drawn, *noise[level + 1 :])


def encode_in_batches(
    model: Glow,
    x: Array,
    *,
    batch_size: int = 100,
    progress: Callable[[int], object] = lambda _: None,
) -> Code:
    """Encode more images than fit in one batch.

    Args:
        model: not conditional on the label.
        x: images, (N, H, W, C), as for `Glow.encode`.
        batch_size: images at a time; the last batch is padded, so one compiled program is enough.
        progress: called after each batch with the number of its images.

    Returns:
        The code of all N images.
    """
    codes = []
    for start in range(0, len(x), batch_size):
        part = jnp.asarray(x[start : start + batch_size])
        padding = [(0, batch_size - len(part))] + [(0, 0)] * (part.ndim - 1)
        codes.append(model.encode(jnp.pad(part, padding)))
        progress(len(part))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[: len(x)], *codes)


def _for_entries(factor: Array | float, entry: jax.Array) -> jax.Array:
    """Shape a number, or one number per image, so that it multiplies (B, h, w, c)."""
    factor = jnp.asarray(factor, entry.dtype)
    return factor.reshape(factor.shape + (1,) * (entry.ndim - 1) if factor.ndim else ())


def _dot(one: Noise, other: Noise) -> jax.Array:
    """Inner products over the entries of all levels, (B,)."""
    by_level = [jnp.sum(a * b, axis=(1, 2, 3)) for a, b in zip(one, other, strict=True)]
    return jnp.sum(jnp.stack(by_level), axis=0)


def flat_noise(noise: Sequence[Array]) -> jax.Array:
    """Put noise into one row for each image: finest level first, each (h, w, c) read row by row.

    Files of openai/glow and exported programs keep latents so.

    Args:
        noise: one array (B, h, w, c) for each level, finest first, as `Code.noise`.

    Returns:
        (B, D), where D is the number of values in an image.

    Raises:
        GlowError: a level is not (B, h, w, c), or levels differ in B.
    """
    shapes = [jnp.shape(entry) for entry in noise]
    if len({shape[:1] for shape in shapes}) != 1 or any(len(shape) != 4 for shape in shapes):
        raise GlowError(
            f"noise has levels of shapes {shapes}; each must be (B, h, w, c), of one B."
        )
    rows = [
        jnp.asarray(entry).reshape(shape[0], math.prod(shape[1:]))
        for entry, shape in zip(noise, shapes, strict=True)
    ]
    return jnp.concatenate(rows, axis=1)


def levels_of(flat: Array, config: ModelConfig) -> tuple[jax.Array, ...]:
    """The inverse of `flat_noise`.

    Args:
        flat: (B, D).
        config: the architecture, which tells the shapes of the levels.

    Returns:
        One array (B, h, w, c) for each level, finest first; `Glow.decode_noise` takes them.

    Raises:
        GlowError: D is not the number of values in an image of the model.
    """
    flat = jnp.asarray(flat)
    if flat.ndim != 2 or flat.shape[1] != config.dimensions:
        raise GlowError(
            f"flat has shape {flat.shape}; latents of this model are (B, {config.dimensions})."
        )
    levels, begin = [], 0
    for height, width, channels in config.latent_shapes:
        end = begin + height * width * channels
        levels.append(flat[:, begin:end].reshape(flat.shape[0], height, width, channels))
        begin = end
    return tuple(levels)
