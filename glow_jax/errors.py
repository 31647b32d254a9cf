"""The errors that a user can mend: one sentence each, without a traceback in the scripts."""


class GlowError(Exception):
    """Something the user gave is wrong: names it, its value, and what to do.

    The scripts print it as one line and exit with status 2. No ValueError, because the command
    line's library would catch those and print them its own way.
    """


class InputTypeError(GlowError, TypeError):
    """An array of the wrong dtype was given."""


class Stopped(Exception):  # noqa: N818 - it is no error
    """A signal stopped training, which has saved itself.

    Attributes:
        exit_status: what a process that ends so returns to the shell: 128 + the signal's number.
    """

    def __init__(self, message: str, signal_number: int):
        """Say where it stands, and how to go on."""
        super().__init__(message)
        self.exit_status = 128 + signal_number
