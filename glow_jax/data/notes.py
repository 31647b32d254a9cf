"""What the user is told of the data: names of files, and notes."""

import sys
from collections.abc import Sequence
from pathlib import Path

from glow_jax.errors import shown

_NAMED = 3


def some(names: Sequence[str | Path]) -> str:
    """The first three of some names, and dots where there are more."""
    return ", ".join(map(shown, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def note(text: str) -> None:
    """Tell the user, on standard error, what was made of the data."""
    print(f"note: {text}", file=sys.stderr)
