"""Cases in which a program misbehaves, for the test of the runner. The seed is what it does."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from glow_jax.errors import GlowError

from .case import Case, new_folder


def _refuses() -> None:
    raise GlowError("The file is damaged.")


def _crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hangs() -> None:
    """As a library does that never returns to Python, where an alarm would ring."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(1000)


def _allocates() -> None:
    bytearray(2**33)


MISBEHAVIOUR: list[Callable[[], None]] = [_refuses, _crashes, _hangs, _allocates]


def make(seed: int, folder: Path) -> Case:
    """The case of a misbehaviour."""
    new_folder(folder)
    return Case(MISBEHAVIOUR[seed])
