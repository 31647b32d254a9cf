"""Long work in a thread of its own, whose caller hears how far it is and may halt it."""

import queue
import threading
from collections.abc import Callable, Generator


class _Halt(Exception):  # noqa: N818 - not an error
    """The work is no longer wanted."""


def counted(
    work: Callable[[Callable[[int], None]], object], total: int
) -> Generator[tuple[int, int], None, None]:
    """Carry out work beside the caller.

    Args:
        work: takes a function to call after each part with its size. That call does not
            return once the generator is closed, so that the work ends there.
        total: how much there is to do.

    Yields:
        How much is done, after each part, and the total.

    Raises:
        Exception: what the work raised.
    """
    told: queue.Queue[int | BaseException | None] = queue.Queue()
    halted = threading.Event()

    def tell(count: int) -> None:
        told.put(count)
        if halted.is_set():
            raise _Halt

    def carry_out() -> None:
        try:
            work(tell)
            told.put(None)
        except _Halt:
            told.put(None)
        except BaseException as error:  # the caller raises it
            told.put(error)

    worker = threading.Thread(target=carry_out, name="beside the page")
    worker.start()
    done = 0
    try:
        while (news := told.get()) is not None:
            if isinstance(news, BaseException):
                raise news
            done += news
            yield done, total
    finally:
        halted.set()
        worker.join()
