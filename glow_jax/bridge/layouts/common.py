"""What the layouts share: votes on sizes, and checks that name the key at fault."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal, TypeVar

import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError

T = TypeVar("T")


@dataclass(frozen=True)
class Given:
    """What the user says about a file, beside the file itself.

    Attributes:
        image_size: height and width.
        flow_permutation: how channels are mixed.
        n_bits: bits kept of each pixel.
        hparams: settings of the run that wrote the file, by name.
    """

    image_size: int | None = None
    flow_permutation: Literal["invconv", "reverse", "shuffle"] | None = None
    n_bits: int | None = None
    hparams: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Found:
    """What a layout makes of a file.

    Attributes:
        config: the architecture.
        values: the state dict in Glow-PyTorch's layout.
        parameters: for each parameter that an optimizer of the writing code numbers, its key in
            `values`, or None where there is no such thing in Glow-PyTorch; None as a whole where
            its parameters are not those of Glow-PyTorch.
    """

    config: ModelConfig
    values: dict[str, np.ndarray]
    parameters: list[str | None] | None


def vote(sizes: Iterable[T]) -> T | None:
    """The value that most tensors agree on, so that a single odd one is found out; None of none."""
    counted = Counter(sizes).most_common(1)
    return counted[0][0] if counted else None


def check(
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    spell: Callable[[str], str] = str,
    integers: tuple[str, ...] = (),
) -> None:
    """Check a state dict key by key.

    Args:
        arrays: the state dict.
        expected: keys and shapes that the architecture needs.
        spell: a key as the file has it.
        integers: endings of keys that may hold whole numbers.

    Raises:
        GlowError: a key is missing, unknown, or holds something else than finite floats of its
            shape.
    """
    missing = [spell(key) for key in expected if key not in arrays]
    if missing:
        more = f", and {len(missing) - 1} more are" if len(missing) > 1 else ""
        raise GlowError(f"Key {missing[0]!r} is missing{more}: the file is not whole.")
    extra = [spell(key) for key in arrays if key not in expected]
    if extra:
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise GlowError(f"Key {extra[0]!r}{more} has no place in the model that the others make.")
    for key, array in arrays.items():
        if array.shape != expected[key]:
            raise GlowError(
                f"Key {spell(key)!r} has shape {array.shape}; the other keys make it "
                f"{expected[key]}."
            )
        if array.dtype.kind != "f" and not key.endswith(integers):
            raise GlowError(f"Key {spell(key)!r} holds {array.dtype} values, not floats.")
        if not np.all(np.isfinite(array)):
            raise GlowError(f"Key {spell(key)!r} holds NaN or infinite values.")


def image_channels(sizes: Iterable[tuple[int, int]]) -> int:
    """The channels of the images, from (level, channels of its steps) of many tensors.

    Raises:
        GlowError: no image has such a number of channels.
    """
    channels = vote(Fraction(size, 4 * 2**level) for level, size in sizes)
    if channels is None:
        raise GlowError(
            "The keys of actnorms and 1x1 convolutions are missing: the file is not whole."
        )
    if channels.denominator != 1 or channels < 1:
        raise GlowError(
            f"The first level has {4 * channels} channels; squeezed images have a multiple of 4."
        )
    return int(channels)


def lu_levels(keys: Iterable[tuple[int, bool]], L: int) -> tuple[bool, tuple[int, ...]]:
    """`LU_decomposed` and `plain_levels`, from (level, whether LU) of every key of a 1x1."""
    by_level: dict[int, list[bool]] = {level: [] for level in range(L)}
    for level, is_lu in keys:
        by_level[level].append(is_lu)
    plain = tuple(level for level, kinds in by_level.items() if vote(kinds) is False)
    return (True, plain) if len(plain) < L else (False, ())


def check_steps(counts: list[int], first_keys: list[str]) -> int:
    """K, which must be the same in every level.

    Args:
        counts: the number of steps in each level.
        first_keys: a key of each level, to name it by.

    Raises:
        GlowError: levels differ.
    """
    K = counts[0]
    for count, key in zip(counts, first_keys, strict=True):
        if count != K:
            raise GlowError(
                f"The level of key {key!r} has {count} steps of flow and the first level {K}; "
                "glow_jax stacks the steps and needs the same number in every level."
            )
    return K


def check_hparams(config: ModelConfig, given: Given, *, permutation_stored: bool) -> ModelConfig:
    """Hold the architecture in the weights against flags and `hparams.json`.

    Args:
        config: the architecture that keys and shapes give.
        given: flags and settings.
        permutation_stored: whether the keys tell the permutation.

    Returns:
        The architecture with what only the settings know.

    Raises:
        GlowError: they contradict each other.
    """
    height, width, _ = config.image_shape
    if given.image_size is not None and (height, width) != (given.image_size, given.image_size):
        raise GlowError(
            f"--image_size is {given.image_size}, but the weights are for images of {height} x "
            f"{width}."
        )
    if given.flow_permutation not in (None, config.flow_permutation):
        raise GlowError(
            f"--flow_permutation is {given.flow_permutation}, but the weights have "
            f"{config.flow_permutation}."
        )
    hparams = given.hparams or {}
    compared = {"K", "L", "hidden_channels", "flow_permutation", "flow_coupling", "learn_top"}
    compared |= {"y_condition", "image_shape"}
    if permutation_stored:
        compared.add("LU_decomposed")
    if config.y_condition:
        compared.add("y_classes")
    for name in [entry.name for entry in fields(ModelConfig) if entry.name in compared]:
        if name not in hparams:
            continue
        said = tuple(hparams[name]) if isinstance(hparams[name], list) else hparams[name]
        if said != getattr(config, name):
            raise GlowError(
                f"hparams.json says {name} = {hparams[name]}, but the weights have {name} = "
                f"{getattr(config, name)}: it belongs to another model; move it away or mend it."
            )
    return config
