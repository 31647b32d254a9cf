"""Running a command in this process."""

import inspect
import sys
from collections.abc import Callable
from unittest import mock

from glow_jax.cli.errors import one_line_errors


def run_command(main: Callable[[], None], words: list[str]) -> None:
    """Run a command with these words.

    Raises:
        SystemExit: as the command does; its cause is the error that ended the command.
    """
    script, errors = inspect.unwrap(main), []

    def recorded() -> None:
        try:
            script()
        except Exception as error:
            errors.append(error)
            raise

    try:
        with mock.patch.object(sys, "argv", ["script", *words]):
            one_line_errors(recorded)()
    except SystemExit as stop:
        raise stop from (errors[-1] if errors else None)
