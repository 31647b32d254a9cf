"""What the user is told of the data: names of files, errors of libraries, notes."""

import sys
from collections.abc import Sequence
from pathlib import Path

from glow_jax.errors import shown

_NAMED = 3


def sentence(error: Exception) -> str:
    """What an error of another library says, in one line of printable characters."""
    return shown(" ".join(str(error).split()).rstrip(".") or type(error).__name__)


def some(names: Sequence[str | Path]) -> str:
    """The first three of some names, and dots where there are more."""
    return ", ".join(map(shown, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def note(text: str) -> None:
    """Tell the user, on standard error, what was made of the data."""
    print(f"note: {text}", file=sys.stderr)
