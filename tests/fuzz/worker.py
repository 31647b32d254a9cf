"""Processes that run cases, so that one that hangs, or takes all memory, ends by itself."""

import contextlib
import multiprocessing
import os
import resource
import shutil
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from .watch import Limits, Outcome

_POLL_SECONDS = 0.1
# A worker's own alarm rings first; what does not return to Python is ended from outside.
_GRACE_SECONDS = 5


class Worker:
    """A process that runs one case after another, and is replaced when it dies."""

    def __init__(self, scratch: Path, keep: Path | None, limits: Limits) -> None:
        """Start nothing yet.

        Args:
            scratch: the folder in which each case gets its own.
            keep: where the folders of cases with faults go; None keeps none.
            limits: what a case may take.
        """
        self._scratch, self._keep, self._limits = scratch, keep, limits
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._is_idle = True

    def run(self, kind: str, seed: int) -> Outcome:
        """Run one case, whatever becomes of the process."""
        folder = self._scratch / f"{kind}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        connection = self._connected(kind)
        connection.send((kind, seed, str(folder)))
        self._is_idle = False
        outcome = self._answer(connection)
        self._is_idle = True
        if not outcome.is_good and self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(folder, self._keep / folder.name, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def stop(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(_GRACE_SECONDS if self._is_idle else 0)
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _connected(self, kind: str) -> Connection:
        if self._connection is None or self._process is None or not self._process.is_alive():
            self.stop()
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            given = (theirs, self._limits, kind, self._scratch)
            process = context.Process(target=_work, args=given, daemon=True)
            process.start()
            self._process = process
            theirs.close()
            self._connection.recv()
        return self._connection

    def _answer(self, connection: Connection) -> Outcome:
        started = time.monotonic()
        seconds = self._limits.seconds + _GRACE_SECONDS
        while time.monotonic() - started < seconds:
            try:
                if connection.poll(_POLL_SECONDS):
                    return connection.recv()
            except (EOFError, ConnectionResetError):
                break
        else:
            self.stop()
            return Outcome("over time", f"killed after {seconds} s")
        assert self._process is not None
        self._process.join()
        status = self._process.exitcode
        self.stop()
        return Outcome("died", f"exit status {status}: a crash, too much memory, or no case")


def _work(connection: Connection, limits: Limits, kind: str, scratch: Path) -> None:
    """Run the cases that come through a connection."""
    from .kinds import maker_of
    from .watch import judge

    # More would be refused by the system: a `MemoryError`, or the end of the process.
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what libraries print by themselves
    # What is imported and made once for all cases must not cost the first one its time.
    maker_of(kind)(0, scratch / "first")
    shutil.rmtree(scratch / "first")
    connection.send("ready")
    with contextlib.suppress(EOFError):  # nothing more comes
        while True:
            kind, seed, folder = connection.recv()
            connection.send(judge(maker_of(kind), seed, Path(folder), limits))
