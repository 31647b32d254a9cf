"""The files that commands write their figures to, and tables of them in Markdown."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import machine

from glow_jax.files import write_json
from glow_jax.ood.report import as_markdown

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = Path("docs/benchmarks")
"""Where the documentation keeps figures, below the working folder, which is the repository."""


def read(name: str) -> Any:
    """A file of figures, by its place in the repository or by its name in `FOLDER`."""
    place = REPOSITORY / name
    return json.loads((place if place.exists() else REPOSITORY / FOLDER / name).read_text())


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    return as_markdown([columns, *([str(cell) for cell in row] for row in rows)]) + "\n"


def with_interval(figure: Mapping[str, float]) -> str:
    """A figure of `eval.py --ood` and its interval, as the cell of a table."""
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def write(path: Path, **figures: object) -> None:
    """Write figures as JSON, with the machine and what else it was busy with.

    Args:
        path: the file, whose folder is made.
        figures: plain values by name. `load`, which is added, is the machine's mean number of
            running processes over the last minute.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    load = round(os.getloadavg()[0], 1)
    write_json(path, {"machine": machine(), "load": load, **figures})
