"""How much memory the pictures that are being decoded take altogether, in all threads."""

import contextlib
import threading
from collections.abc import Callable, Iterator

# What decoding the largest picture of any format takes, in bytes of one of its pixels.
_BYTES_OF_A_PIXEL = 16
_LEAST = 3.2e9


def allowance(limit: float) -> float:
    """The bytes that pictures may take together: those of the largest of `limit` megapixels."""
    return max(limit * 1e6 * _BYTES_OF_A_PIXEL, _LEAST)


class Budget:
    """Bytes that several threads share."""

    def __init__(self) -> None:
        self._taken, self._changed = 0.0, threading.Condition()

    @contextlib.contextmanager
    def share(self, most: float) -> Iterator[Callable[[float], None]]:
        """A share of the budget, which the end of the block gives back.

        Args:
            most: the bytes that all shares may have together.

        Yields:
            A function that takes so many bytes, and waits until they are free. Whoever has some
            already must not call it again: two that wait for each other would wait for ever.
        """
        own = 0.0

        def take(wanted: float) -> None:
            nonlocal own
            with self._changed:
                self._changed.wait_for(lambda: not self._taken or self._taken + wanted <= most)
                self._taken, own = self._taken + wanted, wanted

        try:
            yield take
        finally:
            with self._changed:
                self._taken -= own
                self._changed.notify_all()


PICTURES = Budget()
"""What decoding pictures takes."""
