"""Writing files completely or not at all."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Add the file's name to an `OSError`; the error of a full disk has none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def unused(path: Path) -> Path:
    """The path itself; if it is taken, the first free one of PATH.again, PATH.again2, ..."""
    found, number = path, 1
    while os.path.lexists(found):
        found = path.with_name(f"{path.name}.again{number if number > 1 else ''}")
        number += 1
    return found


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a temporary file and rename it, so that no reader ever sees half a file."""
    if not path.name:  # `.` or nothing
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    aside = aside_of(path)
    with writing(path):
        try:
            write_new(aside, content.encode() if isinstance(content, str) else content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def aside_of(path: Path) -> Path:
    """Where a file or a folder is made that is renamed to `path` once it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_new(path: Path, data: bytes) -> None:
    """Write a file of this process anew, flushed to the disk; never through a link."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, values: object) -> None:
    """Write plain values as indented JSON, completely or not at all."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


def user_cache() -> Path | None:
    """The program's folder in the user's own cache; None for a user without a home."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(home) / "glow_jax"
