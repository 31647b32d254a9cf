"""A process for each library, so that neither finds the other's threads and memory in its way."""

import multiprocessing
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Self

_CONTEXT = multiprocessing.get_context("spawn")


class Worker:
    """A module's `Side`, in a process of its own, that waits for what it is asked."""

    def __init__(self, module: str, *arguments: Any):
        """Start the process, which imports `module` and builds its `Side` of the arguments."""
        self._connection, there = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(there, module, *arguments))
        self._process.start()
        there.close()  # so that nothing is waited for where the process has died

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the side's method returns."""
        self._connection.send((method, *arguments))
        return self._connection.recv()

    def __enter__(self) -> Self:
        """Nothing more: the process runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, module: str, *arguments: Any) -> None:
    side = import_module(module).Side(*arguments)
    while True:
        try:
            method, *rest = connection.recv()
        except EOFError:
            return
        connection.send(getattr(side, method)(*rest))
