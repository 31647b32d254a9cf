"""What a run leaves behind to be read: metrics.jsonl and TensorBoard."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from glow_jax.files import write_whole

METRICS = "metrics.jsonl"


def _step_of(line: str) -> float:
    """The step of a line of metrics; none for one that a kill cut short."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf


class Logs:
    """Writes one line per epoch, scalars and pictures."""

    def __init__(self, folder: Path, *, first_step: int):
        """Open the logs of a run folder; lines from beyond `first_step` are repeated work, and go.

        Args:
            folder: the run folder.
            first_step: the step that the run starts or goes on from.
        """
        self._path = folder / METRICS
        if self._path.exists():
            lines = self._path.read_text().splitlines()
            kept = [line for line in lines if _step_of(line) <= first_step]
            write_whole(self._path, "".join(line + "\n" for line in kept))
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def __enter__(self) -> "Logs":
        """For use in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Flush and close."""
        self._board.close()

    def scalars(self, *, epoch: int, step: int, values: Mapping[str, float | None]) -> None:
        """Write one line of metrics, and its numbers to TensorBoard."""
        with self._path.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "step": step, **values}) + "\n")
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 of shape (H, W, 3), on TensorBoard."""
        self._board.add_image(name, pixels, step, dataformats="HWC")
