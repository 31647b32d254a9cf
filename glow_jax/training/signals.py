"""What interrupts an epoch: a signal, or a checkpoint that is due."""

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
    """What one process requests, or, after a step, what any process requests.

    When several processes train, each passes its requests to the step and gets the maximum over all
    processes. All of them then save or stop after the same step.

    Attributes:
        checkpoint: 1 if a checkpoint is due by the clock, else 0.
        stop_signal: the number of the signal to stop; 0 for none.
    """

    checkpoint: np.ndarray | np.integer
    stop_signal: np.ndarray | np.integer

    @classmethod
    def of(cls, checkpoint: bool = False, stop_signal: int = 0) -> "Requests":
        """Requests as a step takes them; by default none."""
        return cls(np.int32(checkpoint), np.int32(stop_signal))

    @property
    def any(self) -> bool:
        """Whether anything is requested."""
        return bool(self.checkpoint or self.stop_signal)

    def or_of(self, other: "Requests") -> "Requests":
        """What either of the two requests."""
        return Requests(*(np.maximum(*both) for both in zip(self, other, strict=True)))


class Interruptions:
    """Tells when to interrupt an epoch: after a signal, by the clock, or by the number of steps."""

    def __init__(self, config: OutputConfig):
        """Start the clock.

        Args:
            config: only `checkpoint_every` is used.
        """
        self._every_steps = config.checkpoint_steps
        self._every_seconds = 60 * config.checkpoint_minutes
        self._saved_at = time.monotonic()
        self._signal = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record SIGTERM or Ctrl-C instead of ending the process; a second one ends it.

        Python delivers signals to the main thread only; in other threads this does nothing.
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
        """What this process requests now."""
        due = self._every_seconds and time.monotonic() - self._saved_at >= self._every_seconds
        return Requests.of(bool(due), self._signal)

    def due_after(self, step: int) -> bool:
        """Whether to save a checkpoint after step `step`."""
        return bool(self._every_steps) and step % self._every_steps == 0

    def saved(self) -> None:
        """Restart the clock: a checkpoint has just been saved."""
        self._saved_at = time.monotonic()
