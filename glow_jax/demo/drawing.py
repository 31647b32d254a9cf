"""Draws of a run, and the way of one of them from noise to image."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.demo.studio import Studio, decoded_pixels, key_of
from glow_jax.errors import GlowError
from glow_jax.evaluation.samples import labels_in_turn, one_label
from glow_jax.latents import Noise, as_image, level_by_level
from glow_jax.model import unit_noise

MOST = 64
HOTTEST = 2.0


@dataclass(frozen=True)
class Wish:
    """What to draw.

    Attributes:
        temperature: standard deviation of the unit-normal draws.
        seed: of the draws; the same seed at another temperature is the same draw.
        number: how many images.
        classes: of every image, by number; None takes all in turn, and is all without labels.
    """

    temperature: float = 0.7
    seed: int = 0
    number: int = 16
    classes: Sequence[int] | None = None


@dataclass(frozen=True)
class Drawn:
    """Images that were drawn.

    Attributes:
        noise: at the wished temperature, noise of N images.
        y: their labels, (N, classes); None without labels.
        pixels: uint8, (N, H, W, C).
    """

    noise: Noise
    y: np.ndarray | None
    pixels: np.ndarray


def draw(studio: Studio, wish: Wish) -> Drawn:
    """Draw images: those of `sample.py` with the same seed, number and temperature.

    Raises:
        GlowError: a wish is out of range.
    """
    noise, y = noise_of(studio, wish)
    return Drawn(noise, y, decoded_pixels(studio, noise, y))


def noise_of(studio: Studio, wish: Wish) -> tuple[Noise, np.ndarray | None]:
    """The noise and the labels of a draw, before anything is decoded.

    Raises:
        GlowError: a wish is out of range.
    """
    if not 0 <= wish.temperature <= HOTTEST:
        raise GlowError(f"The temperature is {wish.temperature}; it must be from 0 to {HOTTEST:g}.")
    if not 1 <= wish.number <= MOST:
        raise GlowError(f"The number of images is {wish.number}; it must be from 1 to {MOST}.")
    drawn = unit_noise(studio.model.config, key_of(wish.seed), wish.number)
    noise = tuple(np.asarray(wish.temperature * entry) for entry in drawn)
    return noise, _labels(studio, wish)


def _labels(studio: Studio, wish: Wish) -> np.ndarray | None:
    if wish.classes is None:
        in_turn = labels_in_turn(studio.model, wish.number, studio.run.data)
        return None if in_turn is None else np.asarray(in_turn)
    one = one_label(studio.model, wish.classes)
    return None if one is None else np.repeat(one, wish.number, axis=0)


@dataclass(frozen=True)
class Way:
    """The way of an image from noise.

    Attributes:
        noise: the noise itself in the image's own layout, uint8, (H, W, C): grey is 0, black and
            white are three standard deviations away.
        stages: uint8, (L + 1, H, W, C): no noise at all, then that of the coarsest level, of the
            two coarsest, ..., of all levels, which is the image. What is missing is at its mean.
    """

    noise: np.ndarray
    stages: np.ndarray


def way_of(studio: Studio, noise: Noise, y: np.ndarray | None) -> Way:
    """Show how an image comes of its noise, level by level.

    Args:
        studio: the run.
        noise: noise of one image.
        y: its label, (1, classes); None without labels.
    """
    stages = decoded_pixels(studio, level_by_level(noise), y)
    values = jnp.nan_to_num(as_image(noise)[0])
    grey = jnp.clip(jnp.round(127.5 + values * (127.5 / 3)), 0, 255).astype(jnp.uint8)
    return Way(np.asarray(jax.device_get(grey)), stages)
