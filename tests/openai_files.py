"""Files as openai/glow leaves them, for tests: checkpoints of TensorFlow 1 and frozen graphs.

They are written from the descriptions of LevelDB's table format and of protocol buffers. The pieces
(`varint`, `field`, `table`, `entry`) are there for files that are wrong on purpose.
"""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from glow_jax import GlowError
from glow_jax.bridge.reading.openai_files import open_openai

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10}
DTYPES["float16"] = 19


def varint(number: int) -> bytes:
    """A number of up to 64 bits, negative ones in two's complement."""
    number %= 2**64
    digits = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([digit | 0x80 for digit in digits[:-1]] + digits[-1:])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: a varint, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32(number: int, value: bytes) -> bytes:
    """A field of four bytes."""
    return varint(number << 3 | 5) + value


def shape_message(shape: Iterable[int]) -> bytes:
    """A TensorShapeProto."""
    return b"".join(field(2, field(1, size)) for size in shape)


def masked(content: bytes) -> bytes:
    """The CRC-32C of some bytes, as LevelDB and TensorFlow store it."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def block(entries: Iterable[tuple[bytes, bytes]], restart_interval: int = 16) -> bytes:
    """The content of a block: each key without what it shares with the one before it."""
    content, restarts, last = bytearray(), [], b""
    for place, (key, value) in enumerate(entries):
        shared = 0
        if place % restart_interval == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value))
        content += key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(content) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def closed(content: bytes, kind: int = 0) -> bytes:
    """A block with the kind of its compression and its CRC."""
    return content + bytes([kind]) + masked(content + bytes([kind]))


def grouped(
    entries: Iterable[tuple[bytes, bytes]], block_size: int
) -> list[list[tuple[bytes, bytes]]]:
    """Entries as blocks take them; a block is closed once it has so many bytes."""
    groups: list[list[tuple[bytes, bytes]]] = []
    size = block_size
    for key, value in entries:
        if size >= block_size:
            groups.append([])
            size = 0
        groups[-1].append((key, value))
        size += len(key) + len(value)
    return groups


def handles_of(blocks: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Where closed blocks that follow each other lie, by the last key of each."""
    handles, place = [], 0
    for key, closed_block in blocks:
        handles.append((key, varint(place) + varint(len(closed_block) - 5)))
        place += len(closed_block)
    return handles


def table(entries: Iterable[tuple[bytes, bytes]], block_size: int = 4096) -> bytes:
    """A table of entries in the order given; a block is closed once it has so many bytes."""
    blocks = [(group[-1][0], closed(block(group))) for group in grouped(entries, block_size)]
    content = b"".join(closed_block for _, closed_block in blocks)
    return content + ending(len(content), handles_of(blocks))


def ending(place: int, handles: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What stands behind a table's blocks of entries: two more blocks and the footer."""
    metadata, index = closed(block([])), closed(block(handles, 1))
    footer = varint(place) + varint(len(metadata) - 5)
    footer += varint(place + len(metadata)) + varint(len(index) - 5)
    footer = footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return metadata + index + footer


def header(shards: int = 1, endianness: int = 0) -> bytes:
    """The entry "" of a checkpoint's index."""
    big = field(2, endianness) if endianness else b""
    return field(1, shards) + big + field(3, field(1, 1))


def entry(
    dtype: int, shape: Iterable[int], offset: int, size: int, crc: bytes, shard: int = 0
) -> bytes:
    """A variable's entry of a checkpoint's index; what is 0 is left out, as TensorFlow does."""
    numbers = [(3, shard), (4, offset), (5, size)]
    rest = b"".join(field(number, value) for number, value in numbers if value)
    return field(1, dtype) + field(2, shape_message(shape)) + rest + fixed32(6, crc)


def write_bundle(
    path_prefix: Path | str,
    arrays: Mapping[str, np.ndarray],
    *,
    block_size: int = 4096,
    shards: int = 1,
) -> Path:
    """Write a checkpoint as TensorFlow does; return the path of its index.

    Args:
        path_prefix: what its files' names begin with.
        arrays: the variables by name.
        block_size: the bytes of a block of the index.
        shards: the number of files that the values are shared by.
    """
    prefix = Path(path_prefix)
    entries, contents = lay_out(arrays, shards)
    for shard, content in enumerate(contents):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    variables = [(name.encode(), entry(**numbers)) for name, numbers in entries.items()]
    index = Path(f"{prefix}.index")
    index.write_bytes(table([(b"", header(shards)), *variables], block_size))
    return index


def lay_out(
    arrays: Mapping[str, np.ndarray], shards: int = 1
) -> tuple[dict[str, dict[str, Any]], list[bytes]]:
    """What `entry` takes for each variable, sorted by name, and the files of their values."""
    entries: dict[str, dict[str, Any]] = {}
    contents = [bytearray() for _ in range(shards)]
    for place, name in enumerate(sorted(arrays, key=str.encode)):
        shard = place * shards // len(arrays)
        array = np.asarray(arrays[name])
        content = array.astype(array.dtype.newbyteorder("<"), order="C").tobytes()
        entries[name] = {
            **{"dtype": DTYPES[array.dtype.name], "shape": array.shape, "shard": shard},
            **{"offset": len(contents[shard]), "size": len(content), "crc": masked(content)},
        }
        contents[shard] += content
    return entries, [bytes(content) for content in contents]


def tensor(array: np.ndarray, values: bytes | None = None) -> bytes:
    """A TensorProto, with its values as they are or in other fields."""
    content = field(4, array.astype(array.dtype.newbyteorder("<"), order="C").tobytes())
    head = field(1, DTYPES[array.dtype.name]) + field(2, shape_message(array.shape))
    return head + (content if values is None else values)


def constant(name: str, value: bytes, dtype: int = 1) -> bytes:
    """A node of a graph that holds a TensorProto, as a field of the graph."""
    attributes = (("dtype", field(6, dtype)), ("value", field(8, value)))
    pairs = b"".join(field(5, field(1, key.encode()) + field(2, v)) for key, v in attributes)
    return node(name, "Const", pairs)


def node(name: str, operation: str, rest: bytes = b"") -> bytes:
    """A node of a graph, as a field of the graph."""
    return field(1, field(1, name.encode()) + field(2, operation.encode()) + rest)


def write_graph(
    path: Path | str,
    arrays: Mapping[str, np.ndarray],
    operations: Mapping[str, np.ndarray] | None = None,
    *,
    reads: bool = True,
) -> Path:
    """Write a frozen graph.

    Args:
        path: where.
        arrays: the variables by name.
        operations: the constants of operations by name.
        reads: whether the nodes that read variables are there.
    """
    path = Path(path)
    with path.open("wb") as file:
        file.write(node("input/image", "Placeholder"))
        for name, array in {**arrays, **(operations or {})}.items():
            array = np.asarray(array)
            file.write(constant(name, tensor(array), DTYPES[array.dtype.name]))
            if reads and name in arrays:
                file.write(node(f"{name}/read", "Identity", field(3, name.encode())))
        file.write(field(4, field(1, 27)))
    return path


def read_all(path: Path) -> dict[str, np.ndarray]:
    """Every variable that a file holds."""
    with open_openai(path) as file:
        return {name: file.read(name) for name in file.variables}


def refusal(path: Path) -> str:
    """The one sentence that a file is refused by, wherever its fault shows."""
    with pytest.raises(GlowError) as caught:
        read_all(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


def check_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Two files hold the same variables."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
