"""How much memory a file may take: a limit on what is really read, not on what a file declares."""

import contextlib
from collections.abc import Iterable, Iterator

from glow_jax.errors import GlowError, first_line, shown

GIGABYTE = 10**9
# The published model has 44.2 M parameters; with its optimizer three float32 values for each. A
# file may take four times that.
DEFAULT_LIMIT = 4 * 3 * 4 * 44_200_000

# Weights hardly compress: what expands a hundredfold is an attack on memory.
_LARGEST_EXPANSION = 100


class Budget:
    """The memory that reading one checkpoint may take, all its parts together."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        """Start with nothing used.

        Args:
            limit: the number of bytes.
        """
        self.limit = limit
        self._used = 0

    def take(self, size: int, name: str) -> None:
        """Count memory before it is allocated.

        Args:
            size: the number of bytes.
            name: what they are for, as it may stand in a message.

        Raises:
            GlowError: the limit would be passed.
        """
        self._used += size
        if self._used > self.limit:
            raise GlowError(
                f"{name} needs more than {self.limit / GIGABYTE:.3g} GB of memory, the limit; if "
                "you trust the file and have the memory, raise the limit by --memory_limit."
            )

    def give_back(self, size: int) -> None:
        """Count memory that was taken and is no longer held.

        Args:
            size: the number of bytes.
        """
        self._used -= size

    def join(self, chunks: Iterable[bytes], name: str, packed_size: int | None = None) -> bytearray:
        """Put the chunks of a stream together, and stop where it gets too long.

        Args:
            chunks: the stream.
            name: its name, as it may stand in a message.
            packed_size: the number of bytes that it is unpacked from, if it is compressed.

        Raises:
            GlowError: it passes the limit, or a hundred times `packed_size`.
        """
        joined = bytearray()
        for chunk in chunks:
            self.take(len(chunk), name)
            joined += chunk
            if packed_size is not None:
                check_expansion(len(joined), packed_size, name)
        return joined


def check_expansion(size: int, packed_size: int, name: str) -> None:
    """Refuse what unpacks to too many bytes, before more of it is unpacked.

    Args:
        size: the number of bytes that are unpacked by now.
        packed_size: the number of bytes that all of it is unpacked from.
        name: its name, as it may stand in a message.

    Raises:
        GlowError: they are more than a hundred times as many.
    """
    if size > _LARGEST_EXPANSION * max(packed_size, 1):
        raise GlowError(
            f"{name} unpacks to more than {_LARGEST_EXPANSION} times its size: no weights do that."
        )


def first_sentence(error: BaseException) -> str:
    """The first sentence of an error, short and without its full stop."""
    return shown(first_line(error).split(". ")[0].rstrip(". "), 160)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Put a file's name in front of the messages that do not say which file they are about.

    Args:
        name: the file's name.
    """
    try:
        yield
    except GlowError as error:
        raise GlowError(f"{name}: {error}") from error


@contextlib.contextmanager
def advising(advice: str) -> Iterator[None]:
    """Put what the user can do behind the messages of errors.

    Args:
        advice: it, without a full stop.
    """
    try:
        yield
    except GlowError as error:
        raise GlowError(f"{str(error).removesuffix('.')}; {advice}.") from error


@contextlib.contextmanager
def guarded(name: str) -> Iterator[None]:
    """Make one sentence of whatever is raised while a stranger's file is looked at.

    It stands around reading and checking a file, and around nothing else: what is raised later is
    a fault of this program and is to be seen as one.

    Args:
        name: the file's name.

    Raises:
        GlowError: anything was raised inside; its message is one printable line.
    """
    try:
        yield
    except GlowError as error:
        raise type(error)(shown(str(error), 1000)) from error
    except MemoryError as error:
        raise GlowError(
            f"{name} needs more memory than there is; lower --memory_limit to be told earlier."
        ) from error
    except Exception as error:
        raise GlowError(
            f"{name} is damaged, or holds what no checkpoint of a Glow does: "
            f"{type(error).__name__}, {first_sentence(error)}."
        ) from error
