"""The logs of a run: lines of metrics, grids of samples, and trackers such as TensorBoard."""

import contextlib
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from glow_jax.evaluation.png import save_png
from glow_jax.runs import append_metrics, keep_metrics, mend_metrics, read_metrics, set_aside
from glow_jax.training.tracking import Tracker


class Logs:
    """Writes a line of metrics per epoch, scalars and pictures."""

    def __init__(self, folder: Path, *, epochs: int, trackers: Sequence[Tracker] = ()):
        """Open the logs of a run folder; remove lines of later epochs, which will be repeated.

        Args:
            folder: the run folder.
            epochs: the number of finished epochs.
            trackers: those beside TensorBoard; they are closed with the logs.
        """
        self._folder = folder
        self._opened = contextlib.ExitStack()
        self._others = [self._closing(tracker) for tracker in trackers]
        self._mend()
        kept = [row for row in read_metrics(folder) if (row["epoch"] or 0) <= epochs]
        keep_metrics(folder, kept)
        self._board_folder = folder / "tensorboard"
        self._board_folder.mkdir(exist_ok=True)
        self._first_step = int(kept[-1]["step"] or 0) + 1 if kept else 0

    def _mend(self) -> None:
        """Set aside what would keep the logs from being written, and name it."""
        notes = [mend_metrics(self._folder)]
        for path in (self._folder / "tensorboard", self._folder / "samples"):
            if path.exists() and not path.is_dir():
                aside = set_aside(self._folder, path)
                notes.append(f"{path} is no folder; it was moved to {aside}")
        for note in notes:
            if note is not None:
                print(f"warning: {note}.", file=sys.stderr, flush=True)

    def _closing(self, tracker: Tracker) -> Tracker:
        return self._opened.enter_context(contextlib.closing(tracker))

    @functools.cached_property
    def _trackers(self) -> list[Tracker]:
        # tensorboardX imports torch if it is installed, which takes seconds: not before epoch 1.
        from glow_jax.training.tensorboard import Board

        board = Board(self._board_folder, first_step=self._first_step)
        return [self._closing(board), *self._others]

    def __enter__(self) -> "Logs":
        """For use in a `with` statement."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Flush and close."""
        # If a full disk stopped the run, closing fails too; the first error is the one to report.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self._opened.close()

    def scalars(self, *, epoch: int, step: int, values: Mapping[str, float | None]) -> None:
        """Write a line of metrics, and show its numbers on every tracker."""
        append_metrics(self._folder, {"epoch": epoch, "step": step, **values})
        known = {name: value for name, value in values.items() if value is not None}
        for tracker in self._trackers:
            tracker.scalars(known, step)

    def samples(self, pixels: np.ndarray, *, epoch: int, step: int) -> None:
        """Save a grid of samples, uint8 (H, W, 3), and show it on every tracker."""
        save_png(self._folder / "samples" / f"epoch_{epoch:04d}.png", pixels)
        for tracker in self._trackers:
            tracker.picture("samples", pixels, step)
