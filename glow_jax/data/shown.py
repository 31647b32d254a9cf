"""Names from outside, as messages show them."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_LONGEST = 300
_NAMED = 3


def shown(name: str | Path) -> str:
    """A name that can be printed anywhere: whatever is no printable character is escaped.

    Args:
        name: of a file or of anything in a file, in any bytes and of any length.
    """
    text = os.fspath(name)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text[:_LONGEST]
    )
    return text if len(text) < _LONGEST else f"{text[:_LONGEST]}..."


def sentence(error: Exception) -> str:
    """What an error of another library says, in one line of printable characters."""
    return shown(" ".join(str(error).split()).rstrip(".") or type(error).__name__)


def some(names: Sequence[str | Path]) -> str:
    """The first three of some names, and dots where there are more."""
    return ", ".join(map(shown, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def note(text: str) -> None:
    """Tell the user, on standard error, what was made of the data."""
    print(f"note: {text}", file=sys.stderr)
