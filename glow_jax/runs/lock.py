"""Locks that let one run at a time use a folder, and end with its process."""

import contextlib
import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from glow_jax.errors import GlowError
from glow_jax.files import writing
from glow_jax.runs.inside import open_inside

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
# Another process holds the lock beside a folder while it makes the folder, not while it trains.
_PATIENCE_SECONDS = 20.0


def check_system() -> None:
    """Refuse a system without POSIX locks, which keep two runs out of one folder.

    Raises:
        GlowError: this is Windows.
    """
    if fcntl is None:
        raise GlowError(
            "This system has no POSIX locks: glow-jax runs on Linux and macOS, and on Windows "
            "inside WSL 2 (`wsl --install`)."
        )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing run folder.

    It is a POSIX record lock on `.lock`. The system releases it when the process ends in any way.
    Child processes do not inherit it, and it works over NFS. A file system that has no locks gives
    a warning.

    Raises:
        GlowError: another process holds it, or the folder cannot be written.
    """
    with _open(folder / LOCK, folder) as file:
        if not _take(file, folder / LOCK):
            raise GlowError(
                f"{folder} is in use by another run (process {_holder(file)}): wait until it ends, "
                "or give another --output_dir."
            )
        with writing(folder / LOCK):
            file.truncate(0)
            file.write(f"{os.getpid()} on {platform.node()}".encode())
            file.flush()
        yield


@contextlib.contextmanager
def locked_beside(folder: Path) -> Iterator[None]:
    """Hold a lock beside a folder, which need not exist, while it is moved or made.

    The lock's file is removed at the end.

    Raises:
        GlowError: another process keeps it, or the place cannot be written.
    """
    # The parent's real path: for the folder `.` as for any other.
    place = folder.absolute()
    place = place.with_name(f".{place.name}{LOCK}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GlowError(f"{folder} cannot be written: {error.strerror}.") from error
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with _open(place, folder) as file:
            # Whoever held the lock has removed the file, perhaps this one.
            if _take(file, place) and _is_at(file, place):
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):
                        place.unlink()
                return
        if time.monotonic() > give_up_at:
            raise GlowError(
                f"{folder} is being made by another run, which holds {place}: wait until it ends, "
                "or give another --output_dir."
            )
        time.sleep(0.05)


def _open(path: Path, folder: Path) -> BinaryIO:
    try:
        return open_inside(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise GlowError(f"{folder} cannot be written: {error.strerror}.") from error


def _take(file: BinaryIO, path: Path) -> bool:
    """Take the lock of an open file; whether nobody else holds it."""
    check_system()
    assert fcntl is not None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # depends on the system
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OSError(error.errno, error.strerror, str(path)) from error
        print(
            f"warning: {path} cannot be locked ({error.strerror}): see to it that no other run "
            "uses this folder.",
            file=sys.stderr,
            flush=True,
        )
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    text = file.read(80).decode(errors="replace").strip()
    return text if text and text.isprintable() else "unknown"
