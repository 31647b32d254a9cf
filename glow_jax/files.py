"""Writing files completely or not at all, and paths of the user's own folders."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from glow_jax.errors import GlowError, shown


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


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which is renamed to `folder` if nothing was raised meanwhile.

    Raises:
        OSError: it cannot be made at this place, or `folder` is there and not empty.
    """
    aside = aside_of(folder)
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_new_folder(
    output: Path, kind: str, *, may_replace: Callable[[Path], bool] | None = None
) -> None:
    """Refuse a place where no folder of results can be made.

    Args:
        output: the folder, from `--output`; an empty one may be there.
        kind: what it will be, such as "run folder".
        may_replace: says of a folder that is not empty whether it may be replaced; else none may.

    Raises:
        GlowError: it has no name, something else is there, or a file is above it.
    """
    if output.name in ("", ".."):
        raise GlowError(f"--output is {str(output)!r}; it must name the {kind} to write.")
    is_folder = output.is_dir()
    is_free = not output.exists() or (is_folder and not any(output.iterdir()))
    if not is_free and not (is_folder and may_replace is not None and may_replace(output)):
        wanted = "an empty folder" if may_replace is None else f"empty or a {kind}"
        raise GlowError(f"{output} exists and is not {wanted}; give another --output.")
    if any(parent.is_file() for parent in output.parents):
        raise GlowError(f"{output} would lie below a file; give another --output.")


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


def expanded(path: str, name: str) -> Path:
    """A path from outside, with `~` as the home folder that it stands for.

    Args:
        path: the path as it was given.
        name: the setting that holds it.

    Raises:
        GlowError: there is no such home, or no path can hold these characters.
    """
    if "\0" in path:
        raise GlowError(f"{name} is {shown(path)}, which no path can be: it holds a null byte.")
    if not path.startswith("~"):  # as a path, "./~" would begin with it, too
        return Path(path)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0].removeprefix("~")
        owner = f"the user {shown(user)}" if user else "this user"
        raise GlowError(
            f"{name} is {shown(path)}, but {owner} has no home folder: write the path out."
        ) from None


def user_cache() -> Path | None:
    """The program's folder in the user's own cache; None for a user without a home."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(home) / "glow_jax"
