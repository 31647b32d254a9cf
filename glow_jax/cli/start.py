"""How a script starts: Ctrl-C is answered while it still imports, which takes seconds.

So this module imports nothing that takes long. What such a script needs at its end is here, too.
"""

import contextlib
import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn, TextIO

# As a shell reports them.
INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + 13  # SIGPIPE, which Windows has not


def start(command: str) -> None:
    """Import a command and run it.

    Args:
        command: a module of `glow_jax.cli`, whose `main` answers Ctrl-C itself.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else whoever started this process ignores Ctrl-C
        signal.signal(signal.SIGINT, _leave)
    main = importlib.import_module(f"glow_jax.cli.{command}").main
    signal.signal(signal.SIGINT, before)
    main()


def discard(stream: TextIO) -> None:
    """Let a stream end in nothing: Python flushes it once more at its end, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """End at once. An exception might be lost or wrapped in what is being imported."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(INTERRUPTED)
