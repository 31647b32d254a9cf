"""Checkpoints of TensorFlow 1 as files in memory, damaged in ways that only they have."""

import random
from typing import Any

import numpy as np

from tests.openai_files import (
    block,
    closed,
    ending,
    entry,
    field,
    grouped,
    handles_of,
    header,
    lay_out,
    masked,
    shape_message,
    varint,
)

from .damage import damage_bytes, truncate
from .variables import Arrays

Records = list[tuple[bytes, bytes]]

_PLACES = [-1, 0, 1, 4, 10**9, 2**62, 2**63 - 1, 2**64 - 1]
_SHAPES = [(), (0,), (-1,), (10**18,), (2**32,) * 8, (1,) * 100, (2**63 - 1, 2), (2**64 - 1,)]
_DTYPES = [0, 2, 3, 4, 5, 7, 8, 9, 10, 14, 19, 20, 42, 101, 2**31, 2**64 - 1]


def to_bundle(
    prefix: str, arrays: Arrays, rng: random.Random
) -> tuple[dict[str, bytes], list[str]]:
    """The files of a checkpoint, and what was done to them.

    Args:
        prefix: what their names begin with.
        arrays: the variables.
        rng: makes all choices.
    """
    shards = rng.choice([1, 1, 1, 2, 3])
    entries, contents = lay_out(arrays, shards)
    damage = []
    if entries and rng.random() < 0.3:
        damage.append(_damage_entry(entries, contents, rng))
    head = header(shards)
    records = [(b"", head), *((name.encode(), entry(**one)) for name, one in entries.items())]
    if rng.random() < 0.15:
        damage.append(_damage_records(records, rng))
    index, how = _to_table(records, rng)
    damage += how
    files = {f"{prefix}.index": index}
    for shard, content in enumerate(contents):
        name = f"{prefix}.data-{shard:05d}-of-{shards:05d}"
        if rng.random() < 0.05:
            content, change = damage_bytes(content, rng)
            damage.append(f"{change} {name}")
        if rng.random() < 0.98:
            files[name] = content
    return files, damage


def _damage_entry(
    entries: dict[str, dict[str, Any]], contents: list[bytes], rng: random.Random
) -> str:
    """A variable whose entry says something else of it, or whose values fit their CRC only."""
    name, other = (entries[rng.choice(list(entries))] for _ in range(2))
    how = rng.choice(_OF_ENTRIES)
    match how:
        case "offset":
            name["offset"] = rng.choice([*_PLACES, name["offset"] + 4, name["offset"] - 4])
        case "size":
            name["size"] = rng.choice([*_PLACES, name["size"] + 4, name["size"] - 4])
        case "shape":
            shape = name["shape"]
            name["shape"] = rng.choice([*_SHAPES, shape[::-1], (*shape, 1), shape[1:]])
        case "dtype":
            name["dtype"] = rng.choice(_DTYPES)
        case "shard":
            name["shard"] = rng.choice([-1, 1, 2, 255, 2**31, 2**64 - 1])
        case "crc":
            name["crc"] = rng.choice([bytes(4), other["crc"], rng.randbytes(4)])
        case "huge":  # its numbers agree with each other
            count = rng.choice([10**18, 2**40, 2**61])
            name |= {"dtype": 1, "shape": (count,), "size": 4 * count}
        case "swap":
            name["shape"], other["shape"] = other["shape"], name["shape"]
        case "overlap":
            name["offset"], name["shard"] = other["offset"] + rng.choice([0, 4]), other["shard"]
            _mend(name, contents)
        case "values":
            _put(name, rng.randbytes(name["size"]), contents)
        case "floats":
            wild = [
                rng.choice([np.nan, np.inf, 1e38, -1e38, 0.0]) for _ in range(name["size"] // 4)
            ]
            _put(name, np.array(wild, "<f4").tobytes().ljust(name["size"], b"\0"), contents)
    return f"{how} of an entry"


_OF_ENTRIES = ["offset", "size", "shape", "dtype", "shard", "crc", "huge"]
_OF_ENTRIES += ["swap", "overlap", "values", "floats"]


def _put(one: dict[str, Any], values: bytes, contents: list[bytes]) -> None:
    """Other values in the place of a variable's, with their CRC."""
    content, begin = contents[one["shard"]], one["offset"]
    contents[one["shard"]] = content[:begin] + values + content[begin + len(values) :]
    _mend(one, contents)


def _mend(one: dict[str, Any], contents: list[bytes]) -> None:
    begin = one["offset"]
    one["crc"] = masked(contents[one["shard"]][begin : begin + one["size"]])


def _odd_fields(rng: random.Random) -> bytes:
    """Fields of a protocol buffer that no variable has, or that are none."""
    deep = b""
    for _ in range(200):
        deep = field(2, deep)
    return rng.choice(
        [
            *(field(7, b"slice"), field(99, 5), field(99, b"x" * 1000), field(1, b"x")),
            *(field(2, 5), field(3, b"\1"), field(6, 5), field(6, b"x" * 10**5), field(5, 1)),
            *(field(2, field(3, 1)), field(2, shape_message((1,) * 9)), deep, field(0, 1)),
            *(b"\x0b" * 1000, b"\x0c", b"\x0f", b"\x08" + b"\x80" * 20, b"\x80" * 10**5),
            *(b"\x12\xff\xff\xff\xff\x7f", b"\x08" + b"\xff" * 9 + b"\x7f", b"\x35\0", b"\x29\0"),
            *(b"\x08\x81\x00", b"\x82\x00\x00", varint(2**63), b"\x08\0" * 10**5),
        ]
    )


def _damage_records(records: Records, rng: random.Random) -> str:
    """The entries of a table in another order, under other names, or with odd fields."""
    place = rng.randrange(len(records))
    key, value = records[place]
    how = rng.choice(["order", "twice", "key", "header", "fields", "value", "drop", "many"])
    match how:
        case "order":
            rng.shuffle(records)
        case "twice":
            records.insert(place, (key, value))
        case "key":
            odd = [b"\xff\xfe", b"\xed\xa0\x80", b"z" * 1000, b"z" * 1001, b"z" * 10**5, b"\0"]
            records[place] = rng.choice([*odd, key + b"\n"]), value
            if rng.random() < 0.5:
                records.sort()
        case "header":
            heads = [header(n) for n in (0, -1, 2, 4, 257, 10**9, 2**63)]
            heads += [header(1, 1), header(1, 2), b"", _odd_fields(rng), field(1, b"1")]
            records[0] = b"", rng.choice(heads)
        case "fields":
            records[place] = key, rng.choice([value + _odd_fields(rng), _odd_fields(rng) + value])
        case "value":
            records[place] = key, damage_bytes(value, rng)[0]
        case "drop":
            del records[place]
        case "many":
            records += [(b"z%05d" % number, value) for number in range(rng.choice([10, 3000]))]
    return f"{how} of the records"


def _to_table(records: Records, rng: random.Random) -> tuple[bytes, list[str]]:
    """A table, with blocks, their handles or its footer damaged at times."""
    size, interval = rng.choice([1, 40, 300, 4096, 4096]), rng.choice([1, 2, 16, 16, 16])
    groups = grouped(records, size)
    contents = [block(group, interval) for group in groups]
    kinds, damage = [0] * len(contents), []
    if contents and rng.random() < 0.1:
        place = rng.randrange(len(contents))
        if rng.random() < 0.2:
            kinds[place] = rng.choice([1, 2, 4, 255])
            damage.append(f"compression {kinds[place]}")
        else:
            contents[place], how = _damage_block(contents[place], rng)
            damage.append(how)
    pairs = zip(contents, kinds, groups, strict=True)
    blocks = [(group[-1][0], closed(content, kind)) for content, kind, group in pairs]
    handles = handles_of(blocks)
    if handles and rng.random() < 0.05:
        damage.append(_damage_handles(handles, rng))
    content = b"".join(closed_block for _, closed_block in blocks)
    end = ending(len(content), handles)
    if rng.random() < 0.04:
        footer, how = damage_bytes(end[-48:], rng)
        end = end[:-48] + footer
        damage.append(f"{how} of the footer")
    if rng.random() < 0.05:
        changed, how = damage_bytes(content + end, rng)
        return changed, [*damage, f"{how} of the index"]
    return content + end, damage


def _damage_block(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A block that is wrong though its CRC fits."""
    if rng.random() < 0.4:
        content, how = damage_bytes(content, rng)
        return content, f"{how} of a block"
    if rng.random() < 0.4:
        count = rng.choice([0, 2, 1000, 2**31, 2**32 - 1])
        return content[:-4] + count.to_bytes(4, "little"), f"{count} restarts"
    lengths = [rng.choice([0, 1, 5, 200, 2**20, 2**32, 2**63, 2**64 - 1]) for _ in range(3)]
    odd = b"".join(map(varint, lengths)) + rng.randbytes(5)
    return odd + rng.choice([content, truncate(content, rng)]), "lengths of an entry"


def _damage_handles(handles: Records, rng: random.Random) -> str:
    """Blocks that are nowhere, one in another, or the same again."""
    place = rng.randrange(len(handles))
    key, handle = handles[place]
    how = rng.choice(["again", "outside", "order", "bytes", "none", "longer", "behind"])
    match how:
        case "again":
            handles += [(key, handle)] * rng.choice([1, 1000, 10**5])
        case "outside":
            numbers = [rng.choice([0, 1, 10**6, 2**32, 2**63, 2**64 - 1]) for _ in range(2)]
            handles[place] = key, b"".join(map(varint, numbers))
        case "order":
            handles.reverse()
        case "bytes":
            handles[place] = key, damage_bytes(handle, rng)[0]
        case "none":
            del handles[place]
        case "longer":  # than it need be
            handles[place] = key, bytes([handle[0] | 0x80, 0]) + handle[1:]
        case "behind":  # another table's bytes behind the handle
            handles[place] = key, handle + rng.choice([b"\0", handle])
    return f"{how} of the handles"
