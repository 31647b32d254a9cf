"""What interrupts an epoch: a signal, or a checkpoint that falls due in the middle of it."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple

import numpy as np

from glow_jax.config import OutputConfig


class Requests(NamedTuple):
    """What one process asks of all processes, or, after a step, what any of them asks.

    Where several processes train, each hands its requests to the step and gets the largest of all,
    so that all of them save or stop after the same step.

    Attributes:
        checkpoint: 1 where a checkpoint is due by the clock, else 0.
        stop_signal: the number of the signal that asks to stop, 0 for none.
    """

    checkpoint: np.ndarray | np.integer
    stop_signal: np.ndarray | np.integer

    @classmethod
    def of(cls, checkpoint: bool = False, stop_signal: int = 0) -> "Requests":
        """Requests as a step takes them; nothing is asked by default."""
        return cls(np.int32(checkpoint), np.int32(stop_signal))

    @property
    def any(self) -> bool:
        """Whether something is asked."""
        return bool(self.checkpoint or self.stop_signal)

    def or_of(self, other: "Requests") -> "Requests":
        """What either asks."""
        return Requests(*(np.maximum(*both) for both in zip(self, other, strict=True)))


class Interruptions:
    """Notes what should interrupt an epoch: a signal, the clock, or the number of steps."""

    def __init__(self, config: OutputConfig):
        """Start the clock.

        Args:
            config: `checkpoint_every` is used.
        """
        self._every_steps = config.checkpoint_steps
        self._every_seconds = 60 * config.checkpoint_minutes
        self._saved_at = time.monotonic()
        self._signal = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM and Ctrl-C instead of ending; a second one ends the process.

        Python hands signals to the main thread only. In another thread this does nothing.
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
    def requests(self) -> Requests:
        """What this process asks at this moment."""
        due = self._every_seconds and time.monotonic() - self._saved_at >= self._every_seconds
        return Requests.of(bool(due), self._signal)

    def due_after(self, step: int) -> bool:
        """Whether a checkpoint is to be saved after so many steps."""
        return bool(self._every_steps) and step % self._every_steps == 0

    def saved(self) -> None:
        """A checkpoint has been saved just now."""
        self._saved_at = time.monotonic()
