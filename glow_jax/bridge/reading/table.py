"""Tables of LevelDB's format, as TensorFlow writes a checkpoint's index: blocks of sorted entries.

A table is its blocks of entries, a block of further data, a block of the others' places, and a
footer that says where the last two are. Behind each block stand the kind of its compression and the
masked CRC-32C of both. A key is stored as what differs from the key before it.
"""

from collections.abc import Iterator

import google_crc32c

from glow_jax.bridge.reading.protobuf import read_varint
from glow_jax.errors import GlowError

LONGEST_NAME = 1000
"""The number of bytes of the longest name that a variable may have."""

_FOOTER = 48
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_TRAILER = 5
_MOST_ENTRIES = 50_000  # the published models have at most 4,000
_MASK = 0xA282EAD8
_CHUNK = 2**20


def masked_crc(content: bytes | bytearray | memoryview) -> int:
    """The CRC-32C of some bytes as TensorFlow stores it: rotated, and a constant added."""
    crc = 0
    with memoryview(content) as view:
        for begin in range(0, len(view), _CHUNK):
            crc = google_crc32c.extend(crc, bytes(view[begin : begin + _CHUNK]))
    return ((crc >> 15 | crc << 17) + _MASK) % 2**32


def read_table(content: bytes, name: str) -> dict[bytes, bytes]:
    """The entries of a table.

    Args:
        content: the whole file.
        name: its name, as it may stand in a message.

    Raises:
        GlowError: a block is compressed.
        ValueError: the table is damaged.
    """
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or not footer.endswith(_MAGIC):
        raise ValueError("it does not end as a table does")
    metadata, place = _handle(footer, 0)
    index, place = _handle(footer, place)
    if footer[place : -len(_MAGIC)].strip(b"\0"):
        raise ValueError("its footer is damaged")
    entries: dict[bytes, bytes] = {}
    last: bytes | None = None
    end = 0  # each block begins where the one before it ends, so that none is read twice
    for _, value in _entries(_block(content, *index, name)):
        block, place = _handle(value, 0)
        if block[0] != end or place != len(value):
            raise ValueError("its blocks do not follow each other")
        end = sum(block) + _TRAILER
        for key, value in _entries(_block(content, *block, name)):
            if last is not None and key <= last:
                raise ValueError("its names are not in order, or one stands there twice")
            if len(entries) == _MOST_ENTRIES:
                raise ValueError(f"it has more than {_MOST_ENTRIES} entries")
            entries[key] = value
            last = key
    behind = sum(metadata) + _TRAILER
    if metadata[0] != end or index[0] != behind or sum(index) != len(content) - _FOOTER - _TRAILER:
        raise ValueError("its blocks do not fill it")
    _block(content, *metadata, name)
    return entries


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """The first byte of a block and the number of its bytes, and the place behind the two."""
    begin, place = read_varint(data, place)
    size, place = read_varint(data, place)
    return (begin, size), place


def _block(content: bytes, begin: int, size: int, name: str) -> bytes:
    """A block whose CRC-32C is the one behind it."""
    end = begin + size
    if end + _TRAILER > len(content) - _FOOTER:
        raise ValueError("a block ends behind the file")
    if masked_crc(content[begin : end + 1]) != _fixed(content, end + 1):
        raise ValueError("a block's CRC-32C is not the one behind it, so some bytes have changed")
    if kind := content[end]:
        how = "by Snappy" if kind == 1 else f"in the way {kind}"
        raise GlowError(
            f"{name} is compressed {how}: TensorFlow writes the index of a checkpoint uncompressed."
        )
    return content[begin:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block."""
    restarts = _fixed(block, len(block) - 4) if len(block) >= 4 else len(block)
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise ValueError("a block's list of restarts is longer than the block")
    place, key = 0, b""
    while place < end:
        shared, place = read_varint(block, place)
        new, place = read_varint(block, place)
        size, place = read_varint(block, place)
        if shared > len(key) or new + size > end - place:
            raise ValueError("an entry's length is impossible")
        if shared + new > LONGEST_NAME:
            raise ValueError(f"a name has more than {LONGEST_NAME} bytes")
        key = key[:shared] + block[place : place + new]
        place += new
        yield key, block[place : place + size]
        place += size


def _fixed(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "little")
