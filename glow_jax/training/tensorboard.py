"""Event files for TensorBoard."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue] - protobuf makes its classes at import
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)

from glow_jax.files import writing


class Board:
    """Writes scalars and pictures for TensorBoard: a `Tracker`."""

    def __init__(self, folder: Path, *, first_step: int):
        """Open an event file in `folder`; TensorBoard drops older events from `first_step` on."""
        self._folder = folder
        # Numbered, because TensorBoard reads files in the order of their names. Names made from the
        # clock alone could repeat or go backwards.
        prefix = folder / f"events.{len(list(folder.iterdir())):04d}"
        # Not SummaryWriter, which has a queue and a thread: on a full disk the thread dies and the
        # queue waits for it for ever.
        with writing(folder):
            self._writer = EventsWriter(str(prefix))
        self._event(session_log=SessionLog(status=SessionLog.START), step=first_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by their names, and write everything to the disk."""
        for name, value in values.items():
            self._event(summary=summary.scalar(name, value), step=step)
        with writing(self._folder):
            self._writer.flush()

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 of shape (H, W, 3)."""
        self._event(summary=summary.image(name, pixels, dataformats="HWC"), step=step)

    def close(self) -> None:
        """Write everything to the disk and close the file."""
        with writing(self._folder):
            self._writer.close()

    def _event(self, *, step: int, **content: object) -> None:
        with writing(self._folder):
            self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
