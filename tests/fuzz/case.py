"""A case: what the program is given, and what it is asked to do with it."""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# A case's folder: what the program is given, and what it must never touch.
GIVEN = "given"
OUTSIDE = "outside"
PRECIOUS = "precious.json"
"""A file in `OUTSIDE`, to which links lead."""
CANARY = "ran"
"""What code in a file writes into `OUTSIDE`, if it ever runs."""


class UnusableError(AssertionError):
    """The program succeeded, and what it made is of no use."""


@dataclass(frozen=True)
class Case:
    """One case, ready to run.

    Attributes:
        run: asks the program for something; returns, or raises what the program raises.
        damage: what was done to the valid thing, in order.
        output: what must not exist after a refusal; None where a refusal may leave something.
    """

    run: Callable[[], object]
    damage: list[str] = field(default_factory=list)
    output: Path | None = None


Maker = Callable[[int, Path], Case]
"""Makes the case of a seed in an empty folder."""


def new_folder(folder: Path) -> Path:
    """Make the folders of a case; return the one for what the program is given."""
    for name in (GIVEN, OUTSIDE):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / OUTSIDE / PRECIOUS).write_text("{}")
    return folder / GIVEN


def rng_of(kind: str, seed: int) -> random.Random:
    """The source of all choices of a case."""
    return random.Random(f"{kind} {seed}")


def check_finite(what: str, arrays: list[np.ndarray]) -> None:
    """Refuse a result with numbers that no computation survives.

    Raises:
        UnusableError: there are.
    """
    for array in arrays:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UnusableError(f"{what} has parameters that are not finite")


def quietly(run: Callable[[], object]) -> None:
    """Call something without what it says about the data in warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
