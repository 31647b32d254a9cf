"""The errors that a user can mend: one sentence each, without a traceback in the scripts."""


class GlowError(ValueError):
    """Something the user gave is wrong: names it, its value, and what to do.

    The scripts print it as one line and exit with status 2.
    """


class InputTypeError(GlowError, TypeError):
    """An array of the wrong dtype was given."""
