"""Arrays in NumPy's format, read without trust in what their headers say."""

import math
from collections.abc import Callable
from typing import BinaryIO, cast

import numpy as np

from glow_jax.errors import GlowError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_CHUNK = 1 << 20

Check = Callable[[tuple[int, ...], np.dtype], None]
"""Takes an array's shape and type, and raises `GlowError` where it is not wanted."""


def read_npy(stream: BinaryIO, most: float, check: Check) -> np.ndarray:
    """Read an array; memory is taken for what arrives, not for what the header promises.

    Args:
        stream: the file's content.
        most: bytes that the array may have.
        check: looks at the shape and the type before anything else is read.

    Raises:
        GlowError: it is no array, or a larger or another one than wanted.
    """
    shape, fortran, kind = read_header(stream)
    check(shape, kind)
    size = math.prod(shape) * kind.itemsize
    if size > most:
        raise GlowError(f"an array of {shape} takes {size / 1e9:.3g} GB, more than allowed")
    content = bytearray()
    while len(content) < size:
        chunk = stream.read(min(_CHUNK, size - len(content)))
        if not chunk:
            raise GlowError(f"it ends after {len(content):,} of {size:,} bytes")
        content += chunk
    if stream.read(1):  # at its end, a member of an archive is checked against its checksum
        raise GlowError(f"it goes on after the {size:,} bytes of its array")
    array = np.frombuffer(content, kind)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


class _Header:
    """The part of a stream that a header may take: its length may be said to be any number."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._left = stream, _LONGEST_HEADER + 4  # with its length before it

    def read(self, size: int) -> bytes:
        content = self._stream.read(min(size, self._left))
        self._left -= len(content)
        return content


def read_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape of an array, whether it is in Fortran's order, and the type.

    Raises:
        GlowError: it is no array, or one of Python's objects.
    """
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise GlowError("it does not begin like an array of NumPy")
    version = stream.read(2)
    readers = {
        b"\1\0": np.lib.format.read_array_header_1_0,
        b"\2\0": np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise GlowError(f"it is an array in version {list(version)} of NumPy's format")
    try:
        header = cast(BinaryIO, _Header(stream))
        shape, fortran, kind = readers[version](header, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # whatever Python's parser raises of a damaged text
        raise GlowError(f"its header is damaged ({type(error).__name__})") from None
    kind = cast("np.dtype", kind)
    if kind.hasobject or kind.names is not None or kind.subdtype is not None:
        raise GlowError(f"it holds values of type {kind}, which are no numbers")
    whole = all(type(side) is int and side >= 0 for side in shape)
    if not whole or len(shape) > 32 or math.prod(shape) * max(kind.itemsize, 1) >= 2**63:
        raise GlowError(f"its shape is {str(shape)[:60]}, which no array has")
    return shape, fortran, kind
