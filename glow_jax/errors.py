"""Errors that a user can mend. A script prints each as one sentence, without a traceback."""


class GlowError(ValueError):
    """Something the user gave is wrong. The message names it, its value, and what to do.

    A script that meets one prints it as one line and exits with status 2.
    """


class InputTypeError(GlowError, TypeError):
    """An array of the wrong dtype was given."""


class Stopped(Exception):  # noqa: N818 - it is no error
    """A signal stopped training, which has saved its state.

    Attributes:
        exit_status: what the process returns to the shell: 128 + the signal's number.
    """

    def __init__(self, message: str, signal_number: int):
        """Say after which step it stopped, and how to go on."""
        super().__init__(message)
        self.exit_status = 128 + signal_number
