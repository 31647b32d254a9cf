"""Errors that a user can fix. Scripts print each on one line, without a traceback."""


class GlowError(ValueError):
    """A value from the user is wrong; the message names it, its value, and what to do.

    Scripts print the message on one line and exit with status 2.
    """


class InputTypeError(GlowError, TypeError):
    """An array of the wrong dtype was given."""


class Stopped(Exception):  # noqa: N818 - not an error
    """A signal stopped training after it saved its state.

    Attributes:
        exit_status: the exit status of the process: 128 + the signal's number.
    """

    def __init__(self, message: str, signal_number: int):
        """Take a message that says after which step training stopped and how to resume."""
        super().__init__(message)
        self.exit_status = 128 + signal_number
