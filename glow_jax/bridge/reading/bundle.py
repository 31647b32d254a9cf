"""Checkpoints of TensorFlow: a table of what each variable is, and files of the variables' values.

The layout is that of TensorFlow's `tensor_bundle.proto`. The table's entry "" is about the whole;
each other one is a variable: the kind of its elements, its shape, the file and the place of its
values, and their masked CRC-32C.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from glow_jax.bridge.reading.budget import Budget, first_sentence
from glow_jax.bridge.reading.places import Region
from glow_jax.bridge.reading.protobuf import Messages, as_bytes, as_number, signed
from glow_jax.bridge.reading.table import LONGEST_NAME, masked_crc, read_table
from glow_jax.bridge.reading.tensors import Storage, StoredTensor, TensorReader
from glow_jax.bridge.reading.variables import (
    dtype_of,
    is_numeric,
    name_of,
    read_shape,
    size_of,
)
from glow_jax.errors import GlowError, shown

_LARGEST_INDEX = 2**24  # the published models' have at most 300,000 bytes
_MOST_SHARDS = 256
_MOST_FIELDS = 1_000_000  # a variable has about 14
_BYTES_OF_A_DESCRIPTION = 1000  # what Python takes for one


@dataclass(frozen=True)
class _Entry:
    """A variable as the table describes it."""

    tensor: StoredTensor
    shard: int
    offset: int
    size: int
    crc: int | None


def read_bundle(
    index: Region, open_shard: Callable[[int, int], Region], budget: Budget
) -> tuple[dict[str, StoredTensor], TensorReader]:
    """The variables that a checkpoint describes, and what reads them.

    Args:
        index: the table.
        open_shard: opens a file of values, by its number and the number of all such files.
        budget: the memory that the checkpoint may take.

    Raises:
        GlowError: the table is damaged or does not fit the files of values.
    """
    if index.size > _LARGEST_INDEX:
        raise GlowError(
            f"{index.name} has {index.size} bytes: the index of a checkpoint has at most "
            f"{_LARGEST_INDEX}."
        )
    budget.take(2 * index.size, index.name)
    try:
        table = read_table(index.head(index.size), index.name)
        budget.take(_BYTES_OF_A_DESCRIPTION * len(table), index.name)
        messages = Messages(_MOST_FIELDS)
        shards = _shards(messages, table.pop(b"", None))
        entries = {
            name_of(key, LONGEST_NAME): _entry(messages, key, value, shards)
            for key, value in table.items()
        }
    except GlowError:
        raise
    except Exception as error:  # a damaged table can hold anything
        raise GlowError(
            f"{index.name} is damaged, or no index of a TensorFlow checkpoint: "
            f"{first_sentence(error)}."
        ) from error
    used = sorted({entry.shard for entry in entries.values()})
    regions = {shard: open_shard(shard, shards) for shard in used}
    _check_places(entries, regions)

    def load(storage: Storage) -> bytearray:
        entry = entries[storage.key]
        name = f"the tensor of key '{shown(storage.key)}'"
        budget.take(entry.size, name)
        content = regions[entry.shard].read(entry.offset, entry.size)
        if masked_crc(content) != entry.crc:
            raise GlowError(
                f"{name} in {regions[entry.shard].name} does not have the CRC-32C that the index "
                "states, so some of its bytes have changed, or the two files do not belong "
                "together; fetch both again."
            )
        return content

    return {key: entry.tensor for key, entry in entries.items()}, TensorReader(
        load, budget, shared=False
    )


def _shards(messages: Messages, header: bytes | None) -> int:
    """The number of files of values, as the entry about the whole states it."""
    if header is None:
        raise ValueError("it lacks the entry about the whole checkpoint")
    shards = 0
    for number, value in messages.fields(memoryview(header)):
        if number == 1:
            shards = as_number(value)
        elif number == 2 and value:
            raise ValueError("its values have the big end first, which is not supported")
    if not 1 <= shards <= _MOST_SHARDS:
        raise ValueError(f"it is to have {shards} files of values")
    return shards


def _entry(messages: Messages, key: bytes, value: bytes, shards: int) -> _Entry:
    """A variable of the table, whose numbers agree with each other."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}
    shape, crc = (), None
    for number, content in messages.fields(memoryview(value)):
        if number in numbers:
            numbers[number] = signed(as_number(content))
        elif number == 2:
            shape = read_shape(messages, as_bytes(content))
        elif number == 6:
            crc = int.from_bytes(as_bytes(content), "little")
        elif number == 7:
            raise ValueError(f"'{shown(key.decode())}' is stored in slices")
    dtype, shard, offset, size = dtype_of(numbers[1]), numbers[3], numbers[4], numbers[5]
    tensor = StoredTensor.contiguous(key.decode(), dtype, shape)
    name = shown(tensor.storage.key)
    if not 0 <= shard < shards or offset < 0 or size < 0:
        raise ValueError(f"'{name}' lies at {offset} of file {shard}, {size} bytes long")
    if is_numeric(dtype) and size != size_of(tensor):
        raise ValueError(f"'{name}' has {size} bytes for {dtype} of shape {shown(shape)}")
    return _Entry(tensor, shard, offset, size, crc)


def _check_places(entries: Mapping[str, _Entry], regions: Mapping[int, Region]) -> None:
    """Refuse variables that lie outside their file, or on one another.

    Raises:
        GlowError: some do.
    """
    end, before = (-1, 0), ""
    for key, entry in _by_place(entries.items()):
        region = regions[entry.shard]
        if entry.offset + entry.size > region.size:
            raise GlowError(
                f"{region.name} has {region.size} bytes, but the index places '{shown(key)}' at "
                f"{entry.offset} to {entry.offset + entry.size}: it is cut short, or the two files "
                "do not belong together; fetch both again."
            )
        if (entry.shard, entry.offset) < end and entry.size:
            raise GlowError(
                f"The index places '{shown(key)}' and '{shown(before)}' on the same bytes of "
                f"{region.name}: it is damaged."
            )
        end, before = max(end, (entry.shard, entry.offset + entry.size)), key


def _by_place(entries: Iterable[tuple[str, _Entry]]) -> list[tuple[str, _Entry]]:
    return sorted(entries, key=lambda item: (item[1].shard, item[1].offset, item[1].size))
