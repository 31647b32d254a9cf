"""What a case did: how it ended, how long it took, and what it touched.

Files are watched by an audit hook, which sees what Python does. What libraries do by themselves
shows in the folder outside, which is compared.
"""

import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

from glow_jax.errors import GlowError

from .case import CANARY, OUTSIDE, Case, Maker, UnusableError
from .tracing import traced_once

Verdict = Literal[
    "ended well",
    "refused",
    "traceback",
    "no sentence",
    "over memory",
    "over time",
    "died",
    "wrote outside",
    "ran code",
    "left output",
    "unusable",
]
GOOD: tuple[Verdict, ...] = ("ended well", "refused")
_LONGEST_SENTENCE = 2100
_USAGE = "For full helptext, "
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}
_CHANGES |= {"os.truncate", "os.chmod", "os.chown", "os.utime", "shutil.rmtree"}
_RUNS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class"}


@dataclass(frozen=True)
class Limits:
    """What a case may take: seconds, and bytes of memory beside what the process had before."""

    seconds: int = 60
    memory: int = 4 * 2**30


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        verdict: in two words.
        message: the refusal, or what is wrong.
        damage: what had been done to the valid thing.
        seconds: how long it took.
    """

    verdict: Verdict
    message: str = ""
    damage: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the program behaved."""
        return self.verdict in GOOD


class _OutOfTimeError(BaseException):
    """No `except Exception` may take it for a damaged file."""


@dataclass
class _Watched:
    """What may be written while a case runs, and what else was."""

    allowed: tuple[str, ...]
    forbidden: str
    outside: list[str]
    run: list[str]

    def note(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _RUNS:
            self.run.append(f"{event} {arguments[:2]}"[:200])
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES:
                self._check(path)
        elif event in _CHANGES:
            # What a symbolic link leads to stays as it is.
            for path in arguments[1:2] if event == "os.symlink" else arguments[:2]:
                self._check(path)

    def _check(self, path: object) -> None:
        if not isinstance(path, str | bytes):
            return
        place = os.path.abspath(os.fsdecode(path))
        parent = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
        inside = parent.startswith(self.allowed) and not parent.startswith(self.forbidden)
        if not inside and "__pycache__" not in parent and parent != os.devnull:
            self.outside.append(parent)


_watched: _Watched | None = None
_is_installed = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watched is not None and (event in _RUNS or event in _CHANGES or event == "open"):
        _watched.note(event, arguments)


@contextlib.contextmanager
def _watching(folder: Path) -> Iterator[_Watched]:
    global _watched, _is_installed
    if not _is_installed:  # a hook stays until the process ends
        sys.addaudithook(_hook)
        _is_installed = True
    root = os.path.realpath(folder)
    kept = [os.environ.get(name) for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")]
    allowed = tuple(os.path.realpath(path) for path in (root, *kept) if path)
    watched = _Watched(allowed, os.path.join(root, OUTSIDE), [], [])
    _watched = watched
    try:
        yield watched
    finally:
        _watched = None


def judge(make: Maker, seed: int, folder: Path, limits: Limits | None = None) -> Outcome:
    """Make a case in an empty folder, run it, and judge how it ends."""
    limits = limits or Limits()
    case = make(seed, folder)
    before, started = _contents(folder / OUTSIDE), time.monotonic()
    output_before = _is_there(case.output)
    memory = _memory("VmRSS") if _forget_peak() else None
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)  # it may be judged again
    with (
        traced_once(),
        mock.patch.object(tempfile, "tempdir", str(temporary)),
        _watching(folder) as watched,
    ):
        verdict, message = _run(case, folder, limits.seconds)
    if memory is not None and _memory("VmHWM") - memory > limits.memory:
        verdict, message = "over memory", f"{(_memory('VmHWM') - memory) / 2**30:.1f} GB"
    after = _contents(folder / OUTSIDE)
    if CANARY in after or watched.run:
        verdict, message = "ran code", ", ".join(watched.run)
    elif watched.outside or after != before:
        verdict, message = "wrote outside", ", ".join([*watched.outside, *sorted(after)])
    elif any(temporary.iterdir()):
        verdict, message = "left output", f"temporary files: {sorted(_contents(temporary))}"
    elif verdict == "refused" and not output_before and _is_there(case.output):
        verdict = "left output"
    return Outcome(verdict, message, tuple(case.damage), time.monotonic() - started)


def _run(case: Case, folder: Path, seconds: int) -> tuple[Verdict, str]:
    printed = io.StringIO()
    try:
        with (
            _alarm(seconds),
            # As a terminal's, it takes no text that cannot be encoded.
            contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")),
            contextlib.redirect_stderr(printed),
            contextlib.chdir(folder),
        ):
            verdict, message = _ending(case.run, printed)
    except _OutOfTimeError:
        return "over time", f"more than {seconds} s"
    if "Traceback" in printed.getvalue() and verdict in GOOD:  # of a thread, say
        return "traceback", printed.getvalue()
    return verdict, message


def _ending(run: Callable[[], object], printed: io.StringIO) -> tuple[Verdict, str]:
    try:
        run()
    except UnusableError as error:
        return "unusable", str(error)
    except GlowError as error:
        if _ran_out_of_memory(error):
            return "over memory", str(error)
        return _sentence(str(error))
    except SystemExit as stop:
        return _exit(stop, printed.getvalue())
    except MemoryError:
        return "over memory", traceback.format_exc()
    except Exception:
        return "traceback", traceback.format_exc()
    return "ended well", ""


def _sentence(message: str) -> tuple[Verdict, str]:
    """A refusal is one line that a terminal shows, and not a page of it."""
    is_line = message.isprintable() and 0 < len(message) <= _LONGEST_SENTENCE
    return ("refused" if is_line else "no sentence"), message


def _exit(stop: SystemExit, printed: str) -> tuple[Verdict, str]:
    """A command ends with 0, or with 2 after a line that begins with `error: `."""
    if stop.code in (None, 0):
        return "ended well", ""
    if _ran_out_of_memory(stop.__cause__):
        return "over memory", printed
    lines = printed.strip().splitlines()
    if stop.code != 2 or "Traceback" in printed or not lines:
        return "traceback", f"exit status {stop.code}: {printed}"
    if _USAGE in printed:  # about a flag that is none, in tyro's frame
        return "refused", printed
    if not lines[-1].startswith("error: "):
        return "no sentence", printed
    return _sentence(lines[-1])


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was asked for that the limit of the process does not allow."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, MemoryError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


@contextlib.contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _is_there(path: Path | None) -> bool:
    return path is not None and os.path.lexists(path)


def _contents(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, by name."""
    return {
        path.name: path.read_bytes() if path.is_file() else b"" for path in sorted(folder.iterdir())
    }


def _forget_peak() -> bool:
    """Let the system measure the peak of this process's memory anew; whether it can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _memory(name: str) -> int:
    """Bytes of memory that this process has (`VmRSS`), or had at most (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def remove(folder: Path) -> None:
    """Remove a case's folder, whatever was made of its permissions."""
    shutil.rmtree(folder, ignore_errors=True)
