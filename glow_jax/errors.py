"""The errors that a user can mend: one sentence each, without a traceback in the scripts."""


class GlowError(Exception):
    """Something the user gave is wrong: names it, its value, and what to do.

    The scripts print it as one line and exit with status 2. No ValueError, because the command
    line's library would catch those and print them its own way.
    """


class InputTypeError(GlowError, TypeError):
    """An array of the wrong dtype was given."""
