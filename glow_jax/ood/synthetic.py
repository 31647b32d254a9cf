"""Out-of-distribution images that need no file: made up, or made of the run's own test images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from glow_jax.config import DataConfig
from glow_jax.data.batching import batches_in_order
from glow_jax.data.dataset import InMemory, Readable
from glow_jax.data.sources.digits import load_digits
from glow_jax.errors import GlowError
from glow_jax.ood.images import Images

# Of a larger split, as many are taken as there are images of each kind for reference.
_MOST_IMAGES = 10_000
_BATCH = 1000
_STRONGEST = 255.0


@dataclass(frozen=True)
class Kind:
    """A kind of made images.

    Attributes:
        make: takes the run's test images, uint8, (N, H, W, C), the strength, and a generator of
            random numbers; returns uint8 images of the same shape, perhaps of another number.
        strength: the usual one; None where there is none to choose.
    """

    make: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    strength: float | None = None


def _constant(images: np.ndarray, _: float, random: np.random.Generator) -> np.ndarray:
    colours = random.integers(0, 256, (len(images), 1, 1, images.shape[3]), dtype=np.uint8)
    return np.broadcast_to(colours, images.shape).copy()


def _noise(images: np.ndarray, _: float, random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 256, images.shape, dtype=np.uint8)


def _mirrored(images: np.ndarray, *_: object) -> np.ndarray:
    return images[:, :, ::-1]


def _upside_down(images: np.ndarray, *_: object) -> np.ndarray:
    return images[:, ::-1]


def _rotated(images: np.ndarray, *_: object) -> np.ndarray:
    height, width = images.shape[1:3]
    if height != width:
        raise GlowError(
            f"--ood rotated turns squares; the run's images are {height} x {width}: give "
            "upside_down, or leave it out."
        )
    return np.rot90(images, axes=(1, 2))


def _noisy(images: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    noise = random.normal(0, deviation, images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


def _blurred(images: np.ndarray, radius: float, _: np.random.Generator) -> np.ndarray:
    return _each_channel(images, lambda picture: picture.filter(ImageFilter.GaussianBlur(radius)))


def _enlarged_digits(images: np.ndarray, *_: object) -> np.ndarray:
    height, width, channels = images.shape[1:]
    if min(height, width) <= 8:
        raise GlowError(
            f"--ood enlarged_digits enlarges pictures of 8 x 8; the run's images are {height} x "
            f"{width}: leave it out."
        )
    dataset = load_digits(DataConfig(dataset="digits"))
    splits = (split[np.arange(len(split))].images for split in (dataset.train, dataset.test))
    digits = np.concatenate(list(splits))
    size, way = (width, height), Image.Resampling.BILINEAR
    larger = _each_channel(digits, lambda picture: picture.resize(size, way))
    return np.repeat(larger, channels, axis=-1)


def _each_channel(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Change each channel of each image as a grey picture."""
    changed = [
        [np.asarray(change(Image.fromarray(channel))) for channel in np.moveaxis(image, -1, 0)]
        for image in images
    ]
    return np.moveaxis(np.array(changed, np.uint8), 1, -1)


KINDS = {
    "constant": Kind(_constant),
    "noise": Kind(_noise),
    "mirrored": Kind(_mirrored),
    "upside_down": Kind(_upside_down),
    "rotated": Kind(_rotated),
    "noisy": Kind(_noisy, 32),
    "blurred": Kind(_blurred, 1),
    "enlarged_digits": Kind(_enlarged_digits),
}
"""The kinds by name; `noisy:8` is a name with a strength.

constant: each of one colour, drawn uniformly. noise: uniform values. mirrored: left is right.
upside_down: above is below. rotated: a quarter turn. noisy: normal noise of a standard deviation in
grey levels. blurred: by a Gaussian of a radius in pixels. enlarged_digits: scikit-learn's.
"""


def is_synthetic(name: str) -> bool:
    """Whether images of a name are made here."""
    return name.partition(":")[0] in KINDS


def make_images(name: str, own: Readable) -> Images:
    """Make the images of a kind, always the same ones.

    Args:
        name: a kind, or a kind and its strength: `noisy:8`.
        own: the run's test images; up to 10,000 are used.

    Raises:
        GlowError: the strength is none, or the kind cannot be made of such images.
    """
    base, colon, given = name.partition(":")
    kind = KINDS[base]
    strength = _strength(name, kind, given) if colon else kind.strength
    images = Images("own", "test", own).sample(_MOST_IMAGES).split
    batches = batches_in_order(images, batch_size=_BATCH, classes=0)
    pixels = np.concatenate([batch.images for batch in batches])
    made = kind.make(pixels, strength or 0, np.random.default_rng(0))
    labels = np.empty((len(made), 0), np.int32)
    return Images(name, "test", InMemory(np.ascontiguousarray(made), labels))


def _strength(name: str, kind: Kind, given: str) -> float:
    if kind.strength is None:
        raise GlowError(f"--ood {name}: there is no strength to choose; leave :{given} out.")
    try:
        strength = float(given)
    except ValueError:
        strength = 0.0
    if not 0 < strength <= _STRONGEST:
        raise GlowError(
            f"--ood {name}: the strength is {given!r}; it must be above 0 and at most "
            f"{_STRONGEST:g}."
        )
    return strength
