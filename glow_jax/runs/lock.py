"""A lock that lets one run at a time use a folder, and ends with its process."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from glow_jax.errors import GlowError
from glow_jax.files import writing

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing run folder.

    It is a POSIX record lock on `.lock`. The system releases it when the process ends in any way.
    Child processes do not inherit it, and it works over NFS.

    Raises:
        GlowError: another process holds it, or the folder cannot be written.
    """
    try:
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise GlowError(f"{folder} cannot be written: {error.strerror}.") from error
    with file:
        try:
            with writing(folder / LOCK):  # some file systems have no locks
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # depends on the system
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise GlowError(
                f"{folder} is in use by another run (process {holder}): wait until it ends, or "
                "give another --output_dir."
            ) from None
        with writing(folder / LOCK):
            file.truncate(0)
            file.write(f"{os.getpid()} on {os.uname().nodename}")
            file.flush()
        yield
