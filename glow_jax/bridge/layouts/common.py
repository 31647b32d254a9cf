"""What the layouts share: an architecture from shapes, and checks that name the key at fault."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from glow_jax.bridge.reading.budget import DEFAULT_LIMIT
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, shown

T = TypeVar("T")

FlowPermutation = Literal["invconv", "reverse", "shuffle"]
Shape = tuple[int, ...]


class StepTensor(NamedTuple):
    """A tensor of a step of flow.

    Attributes:
        level: the level of its step, 0 the finest.
        name: its key within the step.
        shape: its shape.
    """

    level: int
    name: str
    shape: Shape


@dataclass(frozen=True)
class Given:
    """What is known about a file from elsewhere; None where nothing is.

    Attributes:
        image_size: height and width in pixels.
        flow_permutation: how channels are mixed.
        n_bits: bits kept of each pixel.
        hparams: settings of the run that wrote the file, by name.
        memory: the number of bytes that the model may take.
    """

    image_size: int | None = None
    flow_permutation: FlowPermutation | None = None
    n_bits: int | None = None
    hparams: Mapping[str, object] | None = None
    memory: int = DEFAULT_LIMIT


@dataclass(frozen=True)
class Found:
    """A file, translated.

    Attributes:
        config: the architecture.
        values: the state dict in Glow-PyTorch's layout.
        parameters: the key in `values` of each parameter, in the order in which the optimizers of
            the program that wrote the file number them; an entry is None if Glow-PyTorch has no
            such parameter. The list is None if that program trains other quantities.
    """

    config: ModelConfig
    values: dict[str, np.ndarray]
    parameters: list[str | None] | None


def vote(sizes: Iterable[T]) -> T | None:
    """The value of most tensors, so that one faulty tensor does not decide; None of no values."""
    counted = Counter(sizes).most_common(1)
    return counted[0][0] if counted else None


def check_keys(
    found: Collection[str], expected: Collection[str], spell: Callable[[str], str] = str
) -> None:
    """Check that every key is there, and no other.

    Args:
        found: the keys of a file.
        expected: the keys of the architecture.
        spell: turns a key into its spelling in the file.

    Raises:
        GlowError: a key is missing or unknown.
    """
    missing = [spell(key) for key in expected if key not in found]
    if missing:
        more = f", and {len(missing) - 1} more are" if len(missing) > 1 else ""
        raise GlowError(f"Key '{shown(missing[0])}' is missing{more}: the file is incomplete.")
    known = set(expected)
    extra = [spell(key) for key in found if key not in known]
    if extra:
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise GlowError(
            f"Key '{shown(extra[0])}'{more} does not fit the model that the other keys describe."
        )


def check_arrays(
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, Shape],
    spell: Callable[[str], str] = str,
    integers: tuple[str, ...] = (),
) -> None:
    """Check a state dict key by key.

    Args:
        arrays: the state dict.
        expected: keys and shapes of the architecture.
        spell: turns a key into its spelling in the file.
        integers: endings of the keys that may hold whole numbers.

    Raises:
        GlowError: a key is missing or unknown, or does not hold finite floats of its shape.
    """
    check_keys(arrays, expected, spell)
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
    """The number of channels of the images, by vote.

    Args:
        sizes: (level, channels of the level's steps), one for each tensor that shows them.

    Raises:
        GlowError: no image has such a number of channels.
    """
    channels = vote(Fraction(size, 4 * 2**level) for level, size in sizes)
    if channels is None:
        raise GlowError(
            "The keys of actnorms and 1x1 convolutions are missing: the file is incomplete."
        )
    if channels.denominator != 1 or channels < 1:
        raise GlowError(
            f"The first level has {4 * channels} channels; squeezed images have a multiple of 4."
        )
    return int(channels)


def coupling_kind(
    tensors: Iterable[StepTensor], prefix: str, channels: int
) -> Literal["affine", "additive"]:
    """The kind of the couplings, by vote: additive ones have half as many outputs.

    Args:
        tensors: the tensors of all steps.
        prefix: how the names of a coupling's last convolution begin; their first axis is its
            outputs.
        channels: the number of channels of the images.
    """
    is_additive = vote(
        2 * tensor.shape[0] == 4 * 2**tensor.level * channels
        for tensor in tensors
        if tensor.name.startswith(prefix) and tensor.shape
    )
    return "additive" if is_additive else "affine"


def lu_levels(tensors: Iterable[StepTensor], L: int) -> tuple[bool, tuple[int, ...]]:
    """`LU_decomposed` and `plain_levels`, by the keys of the 1x1 convolutions."""
    by_level: dict[int, list[bool]] = {level: [] for level in range(L)}
    for level, name, _ in tensors:
        if name.startswith("invconv."):
            by_level[level].append(name != "invconv.weight")
    plain = tuple(level for level, kinds in by_level.items() if vote(kinds) is False)
    return (True, plain) if len(plain) < L else (False, ())


def count_steps(steps: Collection[tuple[int, int]], spelling: str) -> tuple[int, int]:
    """K and L, from the (level, step) pairs.

    Args:
        steps: the pairs, at least one.
        spelling: how a key of a level begins, with {} for its number; for messages.

    Raises:
        GlowError: they leave gaps, or the levels differ.
    """
    L = max(level for level, _ in steps) + 1
    names, counts = [spelling.format(level) for level in range(L)], []
    for level, name in enumerate(names):
        found = sorted(step for step_level, step in steps if step_level == level)
        if found != list(range(len(found))):
            raise GlowError(f"The steps of '{name}' are numbered {shown(found)}: some are missing.")
        counts.append(len(found))
    return check_steps(counts, names), L


def check_steps(counts: list[int], first_keys: list[str]) -> int:
    """K, the number of steps in each level.

    Args:
        counts: the number of steps of each level.
        first_keys: a key of each level, for messages.

    Raises:
        GlowError: the levels differ.
    """
    K = counts[0]
    for count, key in zip(counts, first_keys, strict=True):
        if count != K:
            raise GlowError(
                f"The number of steps of flow is {count} in the level of key '{shown(key)}' and "
                f"{K} in the first level; glow_jax stacks the steps and needs the same number in "
                "every level."
            )
    return K
