"""What a run leaves behind to be read: metrics.jsonl and TensorBoard."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue] - protobuf makes its classes at import
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)

from glow_jax.files import write_whole, writing

METRICS = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run folder's `metrics.jsonl`; one that a kill cut short is no line."""
    path = folder / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


class Logs:
    """Writes one line per epoch, scalars and pictures."""

    def __init__(self, folder: Path, *, epochs: int):
        """Open the logs of a run folder; lines of later epochs are repeated work, and go.

        Args:
            folder: the run folder.
            epochs: the number of epochs that are finished.
        """
        self._path = folder / METRICS
        kept = [row for row in read_metrics(folder) if row["epoch"] <= epochs]
        if self._path.exists():
            write_whole(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._board_path = board = folder / "tensorboard"
        board.mkdir(exist_ok=True)
        # Numbered, because TensorBoard reads files in the order of their names, which by the clock
        # alone can repeat or go backwards.
        prefix = board / f"events.{len(list(board.iterdir())):04d}"
        # Not the queue and thread of SummaryWriter: on a full disk the thread dies and the queue
        # waits for it for ever.
        with writing(board):
            self._board = EventsWriter(str(prefix))
            restart = SessionLog(status=SessionLog.START)  # TensorBoard forgets what comes after
            self._event(session_log=restart, step=kept[-1]["step"] + 1 if kept else 0)

    def __enter__(self) -> "Logs":
        """For use in a `with` statement."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Flush and close."""
        # Where a full disk has stopped the run, closing fails too, and is not the news.
        quietly = contextlib.suppress(OSError) if kind else contextlib.nullcontext()
        with quietly, writing(self._board_path):
            self._board.close()

    def scalars(self, *, epoch: int, step: int, values: Mapping[str, float | None]) -> None:
        """Write one line of metrics, and its numbers to TensorBoard."""
        with writing(self._path), self._path.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "step": step, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # the checkpoint that follows must not outlive its line
        for name, value in values.items():
            if value is not None:
                self._event(summary=summary.scalar(name, value), step=step)
        with writing(self._board_path):
            self._board.flush()

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 of shape (H, W, 3), on TensorBoard."""
        self._event(summary=summary.image(name, pixels, dataformats="HWC"), step=step)

    def _event(self, *, step: int, **content: Any) -> None:
        with writing(self._board_path):
            self._board.write_event(Event(wall_time=time.time(), step=step, **content))
