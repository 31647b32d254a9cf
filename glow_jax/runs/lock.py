"""One run at a time in a folder: a lock that dies with the process that holds it."""

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
    """Hold the lock of a run folder that exists.

    A POSIX record lock on `.lock`, which the system drops when the process ends, however it ends;
    child processes do not inherit it, and it holds over NFS.

    Raises:
        GlowError: another process holds it, or the folder cannot be written.
    """
    try:
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise GlowError(f"{folder} cannot be written: {error.strerror}.") from error
    with file:
        try:
            with writing(folder / LOCK):  # a disk may know no locks
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # which of them is the system's choice
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
