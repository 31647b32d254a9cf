"""How a script ends: a user's error is printed on one line."""

import contextlib
import functools
import io
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TextIO

import jax

from glow_jax.cli.start import CLOSED_PIPE, INTERRUPTED, discard
from glow_jax.devices import has_joined_processes, is_main_process, leave
from glow_jax.errors import GlowError, Stopped, shown
from glow_jax.runs import check_system

# A message may repeat what the user has given, which may be anything.
_LONGEST = 2000


def one_line_errors(script: Callable[[], None]) -> Callable[[], None]:
    """Make a script print a user's error on one line and exit with 2, or with 130 on Ctrl-C.

    A pipe that its reader has closed ends it without a word, as with other programs.
    """

    @functools.wraps(script)
    def run() -> None:
        try:
            _check_outputs()
            check_system()
            _print_any_name()
            _use_float32()
            try:
                script()
            except Stopped as stopped:
                if is_main_process():
                    print(stopped)
                sys.exit(stopped.exit_status)
            finally:
                sys.stdout.flush()
        except GlowError as error:
            # Whatever failed on the way: without a device it fails anywhere.
            message = _about_platform(error.__cause__) or str(error)
        except BrokenPipeError as error:
            _end_of_pipe(error)
        except OSError as error:
            message = _about_file(error) or _about_outputs()
            if message is None:
                traceback.print_exc()
                leave(1)
        except KeyboardInterrupt:
            _say("interrupted")
            leave(INTERRUPTED)
        except Exception as error:
            message = _about_platform(error)
            if message is None:
                if not has_joined_processes():
                    raise
                traceback.print_exc()
                leave(1)
        else:
            return
        _say(f"error: {shown(message, _LONGEST)}")
        leave(2)

    return run


def _outputs() -> dict[str, TextIO | None]:
    """The streams of this process by their names; None for one that it was started without."""
    return {"Standard output": sys.stdout, "Standard error": sys.stderr}


def _check_outputs() -> None:
    """Refuse to start where a file might later be opened in the place of an output.

    Raises:
        GlowError: an output is closed.
    """
    for name, stream in _outputs().items():
        if stream is None:
            raise GlowError(f"{name} is closed: redirect it to a file, or to /dev/null.")


def _about_file(error: OSError) -> str | None:
    if error.filename is None or error.strerror is None:
        return None
    return f"{error.filename} cannot be used: {error.strerror}."


def _about_outputs() -> str | None:
    """What to say if an output cannot be written."""
    # What was larger than a buffer went past it, so that nothing is left to flush.
    for end, (name, stream) in itertools.product(("", "\n"), _outputs().items()):
        try:
            if stream is not None:
                print(end=end, file=stream, flush=True)
        except OSError as error:
            return f"{name} cannot be written ({error.strerror}): redirect it to another place."
    return None


def _say(text: str) -> None:
    """Print the last line of all as an error, or where that cannot be, as output."""
    said = False
    for stream in [stream for stream in (sys.stderr, sys.stdout) if stream is not None]:
        try:
            print("" if said else f"{text}\n", end="", file=stream, flush=True)
            said = True
        except OSError:
            discard(stream)


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Say that what has just been printed cannot be kept in a folder where nobody may write.

    Raises:
        GlowError: a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise GlowError(
            f"The figures above are printed, but not kept: {error.filename or folder} cannot be "
            f"written: {error.strerror}."
        ) from error


def _print_any_name() -> None:
    """Let output show the bytes of a file's name that are no text, instead of failing at them."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _use_float32() -> None:
    """Undo what another project may have set for all of the user's programs."""
    if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        print("warning: JAX_ENABLE_X64 is set; computing in float32 as always", file=sys.stderr)
        jax.config.update("jax_enable_x64", False)


def _about_platform(error: BaseException | None) -> str | None:
    """What to say if JAX has none of the devices that `JAX_PLATFORMS` asks for."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if not asked or not isinstance(error, RuntimeError | AssertionError):
        return None
    with contextlib.suppress(RuntimeError, AssertionError):
        jax.devices()
        return None
    return (
        f"JAX_PLATFORMS asks for {asked}, which JAX does not find here: unset it, install JAX for "
        "that device, or set JAX_PLATFORMS=cpu."
    )


def _end_of_pipe(error: BrokenPipeError) -> NoReturn:
    """End without a word after the reader of the output has gone."""
    message = _about_file(error)
    if message is not None:  # a pipe that is no output of this process
        _say(f"error: {message}")
        leave(2)
    discard(sys.stdout)
    leave(CLOSED_PIPE)
