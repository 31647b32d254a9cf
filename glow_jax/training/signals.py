"""What interrupts an epoch: signals, and checkpoints that fall due in the middle of it."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import numpy as np

from glow_jax.config import OutputConfig


class Interruptions:
    """What this process wishes: nothing, a checkpoint by the clock, or to stop.

    Where several processes train, each tells its wishes to the others with every step, so that all
    of them save or stop after the same one.
    """

    def __init__(self, config: OutputConfig):
        """Nothing is wished yet.

        Args:
            config: `checkpoint_every` is used.
        """
        self._every_steps = config.checkpoint_steps
        self._every_seconds = 60 * config.checkpoint_minutes
        self._saved_at = time.monotonic()
        self._signal = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM and Ctrl-C down instead of dying of them; a second one does kill.

        Python hands signals to the main thread only: in another, nothing is done.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGTERM, signal.SIGINT)
        before = {kind: signal.getsignal(kind) for kind in kinds}

        def note(number: int, _: FrameType | None) -> None:
            self._signal = number
            for kind in kinds:
                signal.signal(kind, before[kind])

        for kind in kinds:
            signal.signal(kind, note)
        try:
            yield
        finally:
            for kind in kinds:
                signal.signal(kind, before[kind])

    @property
    def wishes(self) -> np.ndarray:
        """(2,): whether a checkpoint is due by the clock, and the number of the signal."""
        due = self._every_seconds and time.monotonic() - self._saved_at >= self._every_seconds
        return np.array([bool(due), self._signal], np.int32)

    def due_after(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after so many steps."""
        return bool(self._every_steps) and step % self._every_steps == 0

    def saved(self) -> None:
        """A checkpoint has been saved just now."""
        self._saved_at = time.monotonic()
