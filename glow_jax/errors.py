"""Errors that a user can fix. Scripts print each on one line, without a traceback."""

import reprlib
from pathlib import PurePath


class GlowError(ValueError):
    """A value from the user is wrong; the message names it, its value, and what to do.

    Scripts print the message on one line and exit with status 2.
    """


class InputTypeError(GlowError, TypeError):
    """An array of the wrong dtype was given."""


def shown(value: object, longest: int = 300) -> str:
    """A name or a value from outside as it may stand in a message: one line, printable, short.

    Args:
        value: anything; text and paths are not quoted. Bytes of a path that are no UTF-8 are
            escaped, as is whatever cannot be printed.
        longest: the number of characters above which the middle is left out.
    """
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    try:
        text = str(value) if isinstance(value, str | PurePath) else _BRIEF.repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits inside a list
        text = f"a {type(value).__name__}"
    if len(text) > longest:
        text = f"{text[: longest - 23]}...{text[-20:]}"
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def first_line(error: BaseException) -> str:
    """The first line of another library's error, as `shown`, without its full stop."""
    lines = str(error).strip().splitlines()
    return shown(lines[0].rstrip(".") if lines else type(error).__name__)


def _escaped(letter: str) -> str:
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # how Python holds a byte of a path that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80


class Stopped(Exception):  # noqa: N818 - not an error
    """A signal stopped training after it saved its state.

    Attributes:
        exit_status: the exit status of the process: 128 + the signal's number.
    """

    def __init__(self, message: str, signal_number: int):
        """Take a message that says after which step training stopped and how to resume."""
        super().__init__(message)
        self.exit_status = 128 + signal_number
