"""A process for each library, so that neither finds the other's threads and memory in its way."""

import math
import multiprocessing
import signal
import time
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from glow_jax.errors import GlowError

_CONTEXT = multiprocessing.get_context("spawn")


class Worker:
    """A module's `Side`, in a process of its own, that waits for what it is asked."""

    def __init__(self, module: str, *arguments: Any, until: float = math.inf):
        """Start the process, which imports `module` and builds its `Side` of the arguments.

        Args:
            module: a module of this folder.
            arguments: of its `Side`.
            until: the time, by `time.monotonic`, at which a process that has not answered is ended.

        Raises:
            GlowError: that failed, or took too long.
        """
        self.until = until
        self._module = module
        self._connection, there = _CONTEXT.Pipe()
        arguments = (there, module, *arguments)
        self._process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        there.close()  # so that nothing is waited for where the process has died
        try:
            self.answer()
        except BaseException:
            self._process.terminate()
            raise

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the side's method returns.

        Raises:
            GlowError: it failed, or took too long, or the process has died.
        """
        self.begin(method, *arguments)
        return self.answer()

    def begin(self, method: str, *arguments: Any) -> None:
        """Let the side's method run; `answer` has its result."""
        try:
            self._connection.send((method, *arguments))
        except OSError:  # it has ended; `answer` says so
            return

    def answer(self) -> Any:
        """What the method that was begun returns; raises as `ask` does."""
        left = None if self.until == math.inf else max(0.0, self.until - time.monotonic())
        try:
            if not self._connection.poll(left):
                self._process.kill()
                raise GlowError(f"The process of {self._module} took too long and was ended.")
            error, result = self._connection.recv()
        except (EOFError, OSError):
            raise GlowError(f"The process of {self._module} has died: is memory short?") from None
        if error:
            raise GlowError(f"The process of {self._module} failed: {error}")
        return result

    def __enter__(self) -> Self:
        """Nothing more: the process runs already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, _: Any, __: TracebackType | None) -> None:
        """End the process, at once if something went wrong."""
        self._connection.close()
        if kind:
            self._process.terminate()
        self._process.join()


def _serve(connection: Connection, module: str, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the process that asks ends this one
    try:
        side = import_module(module).Side(*arguments)
        connection.send((None, None))
        while True:
            method, *rest = connection.recv()
            try:
                answer = (None, getattr(side, method)(*rest))
            except Exception:  # of one task: the others may do
                answer = (traceback.format_exc(), None)
            connection.send(answer)
    except (EOFError, ConnectionError):
        return
    except Exception:
        connection.send((traceback.format_exc(), None))
