"""Opening what lies in a run folder, which may be a stranger's: no link is followed out of it.

A run folder is refused if what belongs to a run is a symbolic link, a pipe or a device. Other files
that someone keeps in the folder are not looked at.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from glow_jax.errors import GlowError
from glow_jax.files import unused, writing

# What belongs to a run, besides which a folder may hold anything.
_OF_A_RUN = (
    "hparams.json",
    "data.json",
    "metrics.jsonl",
    "results.json",
    "license.json",
    "samples.png",
    "tracking.json",
    "walk.gif",
    ".lock",
    "checkpoints",
    "directions",
    "samples",
    "tensorboard",
    "export",
    "ood",
    "set_aside",
)
_MEGABYTE = 2**20


def check_inside(folder: Path) -> None:
    """Refuse a run folder with links out of it, or with files that are no files.

    Raises:
        GlowError: something that belongs to the run is a symbolic link, a pipe or a device.
    """
    for path in (folder / name for name in _OF_A_RUN):
        if path.is_symlink() or path.is_dir():
            for found, kind in _strange(path):
                raise _refusal(found, kind)
        elif path.exists() and not path.is_file():
            raise _refusal(path, "no regular file")


def _strange(path: Path) -> Iterator[tuple[Path, str]]:
    """What is neither a file nor a folder, in or at a path."""
    if path.is_symlink():
        yield path, "a symbolic link"
        return
    folders = [str(path)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:  # a folder that training has removed meanwhile, or nobody may read
            continue
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path), "a symbolic link"
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                yield Path(entry.path), "no regular file"


def _refusal(path: Path, kind: str) -> GlowError:
    return GlowError(
        f"{path} is {kind}, which is never read or written in a run folder: put the file or folder "
        "itself in its place, or remove it."
    )


def check_no_link(path: Path) -> None:
    """Raise `GlowError` if something in a run folder is a symbolic link."""
    if path.is_symlink():
        raise _refusal(path, "a symbolic link")


def open_inside(path: Path, flags: int) -> BinaryIO:
    """Open a regular file of a run folder with the flags of `os.open`, never through a link.

    Raises:
        GlowError: it is a symbolic link, a pipe or a device.
        OSError: it cannot be opened.
    """
    check_no_link(path)
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with writing(path):
        descriptor = os.open(path, flags | careful | getattr(os, "O_CLOEXEC", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refusal(path, "no regular file")
    if flags & os.O_RDWR:
        return os.fdopen(descriptor, "r+b")
    return os.fdopen(descriptor, "ab" if flags & os.O_APPEND else "rb")


def read_inside(path: Path, megabytes: int) -> bytes:
    """The content of a file of a run folder that should not be larger than that.

    Raises:
        GlowError: it is larger, or no regular file.
        OSError: it cannot be read.
    """
    with open_inside(path, os.O_RDONLY) as file:
        content = file.read(megabytes * _MEGABYTE + 1)
    if len(content) > megabytes * _MEGABYTE:
        raise GlowError(f"{path} is larger than {megabytes} MiB, which no such file should be.")
    return content


def read_json(path: Path, megabytes: int = 1) -> object:
    """What a JSON file of a run folder holds.

    Raises:
        GlowError: it is no JSON, too deep, too large, or no regular file.
        OSError: it cannot be read.
    """
    return parse_json(path, read_inside(path, megabytes))


def read_object(path: Path) -> dict[str, object] | None:
    """The JSON object in a file that a run folder may have; None if it has none.

    Raises:
        GlowError: the file is damaged, holds something else, or is no regular file.
    """
    if not os.path.lexists(path):
        return None
    values = read_json(path)
    if not isinstance(values, dict):
        raise GlowError(f"{path} is damaged: it is no object; remove it to go on without it.")
    return values


def parse_json(path: Path, content: bytes) -> object:
    """What the content of a JSON file is.

    Raises:
        GlowError: it is no JSON, too deep, or holds a number of thousands of digits.
    """
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise GlowError(f"{path} is not valid JSON: its brackets are too deep.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GlowError(f"{path} is not valid JSON: {error}.") from error
    except ValueError:  # Python's limit of 4,300 digits
        raise GlowError(f"{path} holds a number of thousands of digits.") from None


def set_aside(folder: Path, path: Path) -> Path:
    """Move something of a run folder to RUN/set_aside; return its new place."""
    aside = unused(folder / "set_aside" / path.name)
    with writing(path):
        aside.parent.mkdir(exist_ok=True)
        path.rename(aside)
    return aside
