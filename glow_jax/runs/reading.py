"""Reading a step while it may be removed, and saying in one sentence why it cannot be read."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax

from glow_jax.errors import GlowError, first_line
from glow_jax.runs.digests import DIGESTS, check_number, first_damaged
from glow_jax.runs.folder import (
    CHECKPOINTS,
    WhichStep,
    choose_step,
    step_folder,
    whole_steps,
)

_T = TypeVar("_T")

# Each time, training has saved or removed a step while one was read.
_ATTEMPTS = 20
# The model, its average and two moments of the optimizer are four times the model; and as much
# again, because how Orbax lays arrays out is its own affair.
_MOST_TIMES = 8
_BESIDES_BYTES = 64 << 20


def reading(folder: Path, step: WhichStep, read: Callable[[int], _T]) -> _T:
    """Read a step of a run; choose again if training removes it meanwhile.

    Args:
        folder: the run folder.
        step: as for `load`.
        read: reads the step of a number.

    Raises:
        GlowError: there is no such step, or it is damaged.
    """
    for attempt in range(_ATTEMPTS):
        before, number = _state_of(folder), None
        try:
            number = choose_step(folder, step)
            return read(number)
        except Exception as error:
            # What fails in a folder that nobody changed would fail again.
            if attempt + 1 < _ATTEMPTS and _state_of(folder) != before:
                continue
            if isinstance(error, GlowError):
                raise
            raise _unreadable(folder, number, error) from error
    raise AssertionError("the last attempt returns or raises")


def _state_of(folder: Path) -> list[tuple[str, int, int]]:
    """What changes whenever a step is saved, scored or removed."""
    state = []
    try:
        for path in sorted((folder / CHECKPOINTS).iterdir()):
            marks = [path / DIGESTS] if (path / DIGESTS).exists() else []
            for found in (path, *marks):
                status = os.stat(found)
                state.append((str(found), status.st_ino, status.st_mtime_ns))
    except OSError as error:  # just being removed
        state.append((str(error), 0, 0))
    return state


def _unreadable(folder: Path, number: int | None, error: Exception) -> GlowError:
    what = f"Step {number} of {folder}" if number is not None else f"{folder / CHECKPOINTS}"
    return GlowError(f"{what} cannot be read: {first_line(error)}{_advice(folder, number)}.")


def _advice(folder: Path, step: int | None) -> str:
    others = [str(other) for other in whole_steps(folder) if other != step]
    return f"; give --step {' or --step '.join(others)} to use another" if others else ""


def verify(folder: Path, step: int, arrays: object) -> None:
    """Refuse a step unless every file of it is unchanged since it was saved.

    Args:
        folder: the run folder.
        step: the step's number.
        arrays: a tree of the shapes of the model or of the optimizer's state, which bound the bytes
            that are read.

    Raises:
        GlowError: a file is missing or damaged, all are larger than they can be, or the step was
            renamed.
    """
    directory = step_folder(folder, step)
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
    damage = first_damaged(directory, _MOST_TIMES * needed + _BESIDES_BYTES)
    if damage is not None:
        raise GlowError(f"{damage}{_advice(folder, step)}.")
    check_number(directory)
