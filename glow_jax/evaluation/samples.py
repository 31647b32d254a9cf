"""Grids of samples, as pixels."""

import difflib
import itertools
import math
from collections.abc import Sequence

import jax
import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, shown
from glow_jax.model import Glow
from glow_jax.runs import RunData


def sample_pixels(
    model: Glow, key: jax.Array, n: int, *, temperature: float, y: jax.Array | None = None
) -> np.ndarray:
    """Draw `n` images from a model: uint8, (n, H, W, C)."""
    return visible_pixels(model, model.sample(key, n, temperature=temperature, y=y))


def visible_pixels(model: Glow, x: jax.Array) -> np.ndarray:
    """Turn decoded values into pixels to look at: uint8, with the shape of `x`."""
    return np.asarray(without_nan_to_pixels(model, x))


def without_nan_to_pixels(model: Glow, x: jax.Array) -> jax.Array:
    """`visible_pixels` as a part of a compiled program.

    The inverse of a flow may overflow, for example that of an affine model at temperature 1. NaN is
    then shown as black.
    """
    return model.to_pixels(jax.numpy.nan_to_num(x, nan=-0.5))


def labels_in_turn(model: Glow, n: int, data: RunData | None = None) -> jax.Array | None:
    """Labels of `n` images, (n, classes); None if the model is unconditional.

    Args:
        model: the model.
        n: the number of images.
        data: what its run remembers of its images.

    Returns:
        Each class in turn; of a multi-hot model, the sets of labels that its images have, where the
        run remembers them.
    """
    if not model.config.y_condition:
        return None
    sets = itertools.islice(itertools.cycle(label_numbers(model, data)), n)
    return jax.numpy.asarray(_multi_hot([*sets], model.config.y_classes))


def label_numbers(model: Glow, data: RunData | None) -> Sequence[Sequence[int]]:
    """The classes of each label that samples are drawn for, of a conditional model."""
    classes = model.config.y_classes
    # A stranger's run may name classes that there are not.
    known = data.label_sets if data is not None and model.config.multi_class else ()
    sets = [[number for number in one if 0 <= number < classes] for one in known]
    return sets or [[number] for number in range(classes)]


def one_label(model: Glow, classes: Sequence[int]) -> np.ndarray | None:
    """The label of one image, (1, classes), float32: 1 at each class; None if unconditional.

    Raises:
        GlowError: there is not one class, where an image has one.
    """
    config = model.config
    if not config.y_condition:
        return None
    if not config.multi_class and len(classes) != 1:
        raise GlowError(f"An image of this model has one class: choose one, not {len(classes)}.")
    return _multi_hot([classes], config.y_classes)


def _multi_hot(sets: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    """Labels with 1 at each class of a set, (N, classes), float32."""
    labels = np.zeros((len(sets), classes), np.float32)
    for row, chosen in zip(labels, sets, strict=True):
        row[list(chosen)] = 1
    return labels


def class_number(label: str, names: Sequence[str], classes: int) -> int:
    """The number of a class that is given by its name or its number; names go first.

    Args:
        label: the name or the number.
        names: of the classes, by their numbers; empty where they are not known.
        classes: how many there are.

    Raises:
        GlowError: there is no such class.
    """
    if label in names[:classes]:
        return names.index(label)
    if label.isascii() and label.isdigit() and len(label) < 10 and int(label) < classes:
        return int(label)
    near = difflib.get_close_matches(label, names, n=1)
    hint = f" The nearest name is {near[0]}." if near else ""
    known = f", and have names such as {names[0]}" if names else ""
    raise GlowError(
        f"There is no class {shown(label)}: classes are numbered 0..{classes - 1}{known}.{hint}"
    )


def class_numbers(given: str, names: Sequence[str], config: ModelConfig) -> list[int]:
    """The numbers of classes that are given by name or number.

    Args:
        given: one, or, where images have several, any number of them, separated by commas.
        names: as for `class_number`.
        config: that of the model.

    Raises:
        GlowError: there is no such class, or the model is unconditional.
    """
    if not config.y_condition:
        raise GlowError(f"--label {shown(given)}: this model is not conditional on a label.")
    is_one = given in names or not config.multi_class
    labels = [given] if is_one else [part.strip() for part in given.split(",")]
    return [class_number(label, names, config.y_classes) for label in labels]


def grid(images: np.ndarray, *, columns: int | None = None) -> np.ndarray:
    """Lay images out in rows: (N, H, W, C) -> (rows * (H + 1) + 1, columns * (W + 1) + 1, 3).

    Args:
        images: uint8.
        columns: images in a row; by default the grid is about square.
    """
    count, height, width = images.shape[:3]
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 255, np.uint8)
    for i, image in enumerate(in_colours(images)):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image
    return canvas


def in_colours(images: np.ndarray) -> np.ndarray:
    """Images of any number of channels as three: (N, H, W, C) -> (N, H, W, 3).

    One channel becomes grey; of more than three channels, the first three are shown.
    """
    colours = np.repeat(images, 3, axis=-1) if images.shape[-1] < 3 else images
    return colours[..., :3]
