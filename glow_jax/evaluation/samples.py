"""Grids of samples, as pixels."""

import difflib
import math
from collections.abc import Sequence

import jax
import numpy as np

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


def labels_to_draw(model: Glow, data: RunData | None = None) -> jax.Array | None:
    """The labels that samples are drawn for, (R, classes); None if the model is unconditional.

    Args:
        model: the model.
        data: what its run remembers of its images: of multi-hot labels, the sets that occur.

    Returns:
        Those sets where they are known, or else each class alone.
    """
    if not model.config.y_condition:
        return None
    classes = model.config.y_classes
    sets = data.label_sets if data is not None else ()
    if not sets:
        return jax.numpy.eye(classes)
    rows = np.zeros((len(sets), classes), np.float32)
    for row, numbers in zip(rows, sets, strict=True):
        row[[number for number in numbers if 0 <= number < classes]] = 1
    return jax.numpy.asarray(rows)


def labels_in_turn(model: Glow, n: int, data: RunData | None = None) -> jax.Array | None:
    """`labels_to_draw` over and over, (n, classes); None if the model is unconditional."""
    labels = labels_to_draw(model, data)
    return labels if labels is None else labels[np.arange(n) % len(labels)]


def one_label(model: Glow, classes: Sequence[int]) -> np.ndarray | None:
    """The label of one image, (1, classes), float32: 1 at each class; None if unconditional.

    Raises:
        GlowError: there is not one class, where an image has one.
    """
    config = model.config
    if not config.y_condition:
        return None
    if not config.multi_class and len(classes) != 1:
        raise GlowError("This model is conditional on the class: choose one.")
    label = np.zeros((1, config.y_classes), np.float32)
    label[0, list(classes)] = 1
    return label


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
