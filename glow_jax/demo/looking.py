"""What a run makes of one image: its bits/dim, its reconstruction, its latents."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from glow_jax.data import Batch
from glow_jax.demo.studio import Studio, decoded_pixels, key_of
from glow_jax.evaluation.likelihood import dequantized, likelihood_of_batch
from glow_jax.evaluation.samples import visible_pixels
from glow_jax.latents import Noise, resample_level

REDRAWN = 6
"""Images with a level drawn anew that are shown at once."""


@dataclass(frozen=True)
class Encoded:
    """An image as a run holds it, which is all that editing needs.

    Attributes:
        title: what it is.
        noise: noise of one image.
        y: its label, (1, classes); None without labels.
    """

    title: str
    noise: Noise
    y: np.ndarray | None


@dataclass(frozen=True)
class Seen:
    """What a run makes of an image.

    Attributes:
        encoded: its latents.
        given: the image, uint8, (H, W, C).
        pixels: as the model sees it, uint8, (H, W, C): with `n_bits` below 8 there are fewer greys.
        bits_per_dim: with the noise of every evaluation, so that a test image has the number that
            `eval.py` averages.
        level_bits_per_dim: each level's share, (L,); they sum to `bits_per_dim`.
        reconstruction: decoded from the latents, uint8, (H, W, C).
        largest_error: of the decoded values, in grey levels of the model.
        changed: values that are decoded to another grey level.
    """

    encoded: Encoded
    given: np.ndarray
    pixels: np.ndarray
    bits_per_dim: float
    level_bits_per_dim: np.ndarray
    reconstruction: np.ndarray
    largest_error: float
    changed: int


def look(
    studio: Studio, pixels: np.ndarray, y: np.ndarray | None, *, index: int = 0, title: str = ""
) -> Seen:
    """Measure and encode an image.

    Args:
        studio: the run.
        pixels: uint8, (H, W, C).
        y: its label, (1, classes); None without labels.
        index: its number in the test split, which decides the noise; 0 for other images.
        title: what it is.
    """
    config, images = studio.model.config, pixels[None]
    indices = np.array([index], np.uint32)
    labels = np.empty((1, 0), np.float32) if y is None else y
    batch = Batch(images, labels, indices)
    found = likelihood_of_batch(studio.flow.model, batch, studio.flow.devices, pad_to=1)
    x = dequantized(studio.model, images, indices)
    code = studio.model.encode(x, y)
    back = studio.model.decode(code.latents, y)
    greys = 2**config.n_bits
    shown = visible_pixels(studio.model, x)[0]
    reconstruction = visible_pixels(studio.model, back)[0]
    return Seen(
        Encoded(title, tuple(np.asarray(entry) for entry in code.noise), y),
        pixels,
        shown,
        float(found.bits_per_dim[0]),
        found.level_bits_per_dim[0],
        reconstruction,
        float(jnp.max(jnp.abs(back - x))) * greys,
        int(np.sum(shown != reconstruction)),
    )


def drawn_anew(
    studio: Studio, encoded: Encoded, level: int, *, seed: int, temperature: float
) -> np.ndarray:
    """The image with one level drawn anew, several times; all other levels stay.

    Args:
        studio: the run.
        encoded: the image.
        level: from 0, the finest, to L - 1, the top.
        seed: of the draws.
        temperature: their standard deviation.

    Returns:
        uint8, (REDRAWN, H, W, C).
    """
    noise: Noise = tuple(jnp.repeat(jnp.asarray(e), REDRAWN, axis=0) for e in encoded.noise)
    new = resample_level(noise, level, key_of(seed), temperature=temperature)
    return decoded_pixels(studio, new, encoded.y)


def share_of_levels(studio: Studio) -> Sequence[float]:
    """Each level's share of an image's values."""
    config = studio.model.config
    return [float(np.prod(shape)) / config.dimensions for shape in config.latent_shapes]
