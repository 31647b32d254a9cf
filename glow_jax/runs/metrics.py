"""`metrics.jsonl`: one line per epoch of a run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from glow_jax.errors import GlowError
from glow_jax.files import write_whole, writing
from glow_jax.runs.inside import open_inside, read_inside, set_aside

METRICS = "metrics.jsonl"
_LARGEST_MIB = 256

Row = Mapping[str, int | float | None]


def read_metrics(folder: Path) -> list[Row]:
    """The lines of a run folder's `metrics.jsonl`, without one that a kill cut short.

    Damaged lines are left out, too; `mend_metrics` tells.
    """
    return _read(folder / METRICS)[0]


def published_rows(path: Path, megabytes: int) -> list[Row]:
    """The lines of a model folder's `metrics.jsonl`, which was written whole.

    Args:
        path: the file; there need be none.
        megabytes: how large it may be.

    Raises:
        GlowError: it is damaged, too large, or no regular file.
    """
    rows, damage = _read(path, megabytes, may_be_cut=False)
    if damage is not None:
        raise GlowError(f"{damage}: fetch the model again, or remove the file.")
    return rows


def mend_metrics(folder: Path) -> str | None:
    """Set a damaged `metrics.jsonl` aside as it is, and keep its good lines; say so.

    Raises:
        GlowError: it is a symbolic link, a pipe or a device.
    """
    path = folder / METRICS
    try:
        rows, damage = _read(path)
    except (GlowError, OSError) as error:
        if path.is_symlink():
            raise
        rows, damage = [], str(error)
    if damage is None:
        return None
    aside = set_aside(folder, path)
    if rows:
        _write(path, rows)
    return (
        f"{damage}; it was moved to {aside}, and training goes on with its {len(rows)} good lines"
    )


def _read(
    path: Path, megabytes: int = _LARGEST_MIB, *, may_be_cut: bool = True
) -> tuple[list[Row], str | None]:
    """The good lines, and what is wrong with the first bad one.

    Args:
        path: the file; there need be none.
        megabytes: how large it may be.
        may_be_cut: whether a kill may have cut the last line short.
    """
    if not path.exists() and not path.is_symlink():
        return [], None
    lines = read_inside(path, megabytes).split(b"\n")
    cut_short = lines.pop()  # empty, unless a kill cut the last line short
    if cut_short and not may_be_cut:
        lines, cut_short = [*lines, cut_short], b""
    rows: list[Row] = []
    damage = None
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif damage is None:
            damage = f"{path} is damaged in line {number}"
    last = _row(cut_short)
    return (rows if last is None else [*rows, last]), damage


def _row(line: bytes) -> Row | None:
    """A line's numbers; None if it is no line of metrics."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not all(map(_is_number, row.values())):
        return None
    return row if all(type(row.get(name)) is int for name in ("epoch", "step")) else None


def _is_number(value: object) -> bool:
    if type(value) is int:
        return abs(value) < 2**63
    return value is None or type(value) is float


def keep_metrics(folder: Path, rows: list[Row]) -> None:
    """Replace the lines of a run folder's `metrics.jsonl`, if there is one."""
    path = folder / METRICS
    if path.exists():
        _write(path, rows)


def _write(path: Path, rows: list[Row]) -> None:
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_metrics(folder: Path, row: Row) -> None:
    """Add a line and flush it to the disk: no checkpoint may exist without its line."""
    path = folder / METRICS
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with writing(path), open_inside(path, flags) as file:
        file.write(f"{json.dumps(row)}\n".encode())
        file.flush()
        os.fsync(file.fileno())
