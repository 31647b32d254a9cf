"""A process for each library, so that neither finds the other's threads and memory in its way."""

import multiprocessing
import signal
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from glow_jax.errors import GlowError

_CONTEXT = multiprocessing.get_context("spawn")


class Worker:
    """A module's `Side`, in a process of its own, that waits for what it is asked."""

    def __init__(self, module: str, *arguments: Any):
        """Start the process, which imports `module` and builds its `Side` of the arguments.

        Raises:
            GlowError: that failed.
        """
        self._module = module
        self._connection, there = _CONTEXT.Pipe()
        arguments = (there, module, *arguments)
        self._process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        there.close()  # so that nothing is waited for where the process has died
        try:
            self._answer()
        except BaseException:
            self._process.terminate()
            raise

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the side's method returns.

        Raises:
            GlowError: it failed, or the process has died.
        """
        self._connection.send((method, *arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            error, result = self._connection.recv()
        except (EOFError, ConnectionError):
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
            connection.send((None, getattr(side, method)(*rest)))
    except EOFError:
        return
    except Exception:
        connection.send((traceback.format_exc(), None))
