"""Checks that keep a file from describing a model that no machine holds or that has no inverse."""

from collections.abc import Callable, Mapping

import numpy as np

from glow_jax.bridge.layouts.common import Given
from glow_jax.bridge.reading.budget import GIGABYTE
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, shown

# The largest Glows published have 6 levels of 32 steps.
_MOST_LEVELS = 16
_MOST_STEPS = 2048
_LARGEST_SIDE = 2**20
_ROUNDING = 1e-6


def check_counts(levels: int, steps: int) -> None:
    """Refuse a number of levels or steps that no Glow has, before anything of that size is built.

    Raises:
        GlowError: there are too many.
    """
    if levels > _MOST_LEVELS:
        raise GlowError(
            f"The keys count {shown(levels)} levels; at most {_MOST_LEVELS} can be converted, as "
            "each halves the image."
        )
    if steps > _MOST_STEPS:
        raise GlowError(
            f"The keys count {shown(steps)} steps of flow; at most {_MOST_STEPS} can be converted."
        )


def check_layer(number: str, key: str) -> int:
    """The number of a layer in a key.

    Raises:
        GlowError: no model has so many layers.
    """
    if len(number) > 6:
        raise GlowError(f"Key '{shown(key)}' has a number that no model's layers reach.")
    return int(number)


def check_size(
    sides: tuple[int, int], channels: int, hidden: int, classes: int, K: int, L: int, given: Given
) -> None:
    """Refuse a model whose weights or buffers would not fit into memory.

    Args:
        sides: height and width of the images.
        channels: the images' channels.
        hidden: channels of the coupling networks' hidden layers.
        classes: the number of classes, 0 without any.
        K: steps of flow in each level.
        L: levels.
        given: what the user says, the memory too.

    Raises:
        GlowError: it is too large.
    """
    named = {"image height": sides[0], "image width": sides[1], "image channels": channels}
    named |= {"hidden channels": hidden, "classes": classes}
    for name, size in named.items():
        if not 0 <= size <= _LARGEST_SIDE:
            raise GlowError(
                f"The model would have {name} of {shown(size)}; at most {_LARGEST_SIDE} can be "
                "converted."
            )
    values = 2 * channels * 2**L * sides[0] * sides[1] // 4**L  # prior_h
    for level in range(L):
        C = 4 * channels * 2**level
        step = C * C + 9 * hidden * C // 2 + hidden * hidden + 9 * hidden * C // 2
        values += K * step + 9 * C * C // 2
    values += 9 * (4 * channels * 2 ** (L - 1)) ** 2 + 2 * classes * channels * 2**L
    if 4 * values > given.memory:
        raise GlowError(
            f"The model for images of {sides[0]} x {sides[1]} would take "
            f"{4 * values / GIGABYTE:.1f} GB of memory, more than the limit of "
            f"{given.memory / GIGABYTE:.2f} GB; raise it by --memory_limit if the sizes are right."
        )


def check_mixings(
    values: Mapping[str, np.ndarray], config: ModelConfig, spell: Callable[[str], str] = str
) -> None:
    """Refuse 1x1 convolutions that have no inverse.

    Args:
        values: the state dict in Glow-PyTorch's layout.
        config: the architecture.
        spell: turns a key into its spelling in the file.

    Raises:
        GlowError: a permutation is none, a sign is none, or a matrix is singular.
    """
    if config.flow_permutation != "invconv":
        return
    for key, array in values.items():
        fault = None
        if key.endswith(".invconv.p") and not _is_permutation(array):
            fault = "is no permutation: each row and each column must hold a single 1"
        elif key.endswith(".invconv.sign_s") and np.any(np.abs(np.abs(array) - 1) > _ROUNDING):
            fault = "holds a value that is neither 1 nor -1"
        elif key.endswith(".invconv.log_s") and not _has_finite_exponential(array):
            fault = "holds a logarithm whose exponential is zero or infinite: the 1x1 is singular"
        elif key.endswith(".invconv.weight") and _is_singular(array):
            fault = "is a singular matrix: this 1x1 convolution has no inverse"
        if fault:
            raise GlowError(f"Key '{shown(spell(key))}' {fault}.")


def _is_permutation(array: np.ndarray) -> bool:
    ones = np.rint(array) == 1
    return bool(
        np.all(np.abs(array - ones) <= _ROUNDING)
        and np.all(ones.sum(axis=0) == 1)
        and np.all(ones.sum(axis=1) == 1)
    )


def _has_finite_exponential(array: np.ndarray) -> bool:
    # A run computes in float32 whatever the file has.
    with np.errstate(over="ignore", under="ignore"):
        s = np.exp(array.astype(np.float32))
    return bool(np.all((s >= np.finfo(np.float32).tiny) & np.isfinite(s)))


def _is_singular(array: np.ndarray) -> bool:
    """Whether the smallest singular value is lost in the rounding of the largest."""
    sizes = np.linalg.svd(array.astype(np.float64), compute_uv=False)
    return bool(sizes[-1] <= sizes[0] * np.finfo(np.float32).eps)
