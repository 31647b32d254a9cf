"""What a run leaves behind to be read: metrics.jsonl and TensorBoard."""

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glow_jax.files import write_whole, writing

if TYPE_CHECKING:
    from glow_jax.training.tensorboard import Board

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
        self._board_folder = folder / "tensorboard"
        self._board_folder.mkdir(exist_ok=True)
        self._first_step = kept[-1]["step"] + 1 if kept else 0
        self._opened = contextlib.ExitStack()

    @functools.cached_property
    def _board(self) -> "Board":
        # tensorboardX imports torch where it is installed, for seconds: not before the first epoch.
        from glow_jax.training.tensorboard import Board

        board = Board(self._board_folder, first_step=self._first_step)
        return self._opened.enter_context(contextlib.closing(board))

    def __enter__(self) -> "Logs":
        """For use in a `with` statement."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Flush and close."""
        # Where a full disk has stopped the run, closing fails too, and is not the news.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self._opened.close()

    def scalars(self, *, epoch: int, step: int, values: Mapping[str, float | None]) -> None:
        """Write one line of metrics, and its numbers to TensorBoard."""
        with writing(self._path), self._path.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "step": step, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # the checkpoint that follows must not outlive its line
        for name, value in values.items():
            if value is not None:
                self._board.scalar(name, value, step)
        self._board.flush()

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 of shape (H, W, 3), on TensorBoard."""
        self._board.picture(name, pixels, step)
