"""`metrics.jsonl`: one line per epoch of a run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from glow_jax.files import write_whole, writing

METRICS = "metrics.jsonl"

Row = Mapping[str, int | float | None]


def read_metrics(folder: Path) -> list[Row]:
    """The lines of a run folder's `metrics.jsonl`, without one that a kill cut short."""
    path = folder / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def keep_metrics(folder: Path, rows: list[Row]) -> None:
    """Replace the lines of a run folder's `metrics.jsonl`, if there is one."""
    path = folder / METRICS
    if path.exists():
        write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_metrics(folder: Path, row: Row) -> None:
    """Add a line and flush it to the disk: no checkpoint may exist without its line."""
    path = folder / METRICS
    with writing(path), path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
