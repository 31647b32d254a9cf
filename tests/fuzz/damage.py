"""Damage that fits any kind of file: bytes, JSON, names, and what lies in the place of a file."""

import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

Json = object

# Values that are hard to compare, to compute with, to print or to write down.
ODD: list[Json] = [
    *(None, True, False, 0, -1, 1, 2, 7, 64, 10**6, 2**31, 2**63, 2**64, 10**400, -(10**400)),
    *(0.5, -0.5, 1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
    *("", "4", "nan", "\x1b[31m\n", "\ud800", "x" * 5000, "../outside", "/etc/passwd", "²", "٣"),
    *([], [1], [[]], [None], ["a"], [4, 4, 1], [10**9, 10**9, 3], {}, {"a": {"b": []}}),
]
NAMES = ["", ".", "..", "a\nb", "x" * 300, "\udcff", "ä", "\x1b[2J", "a/../../b", "-rf", "con", " "]
"""Names that a file may have in an archive, and mostly not on a disk."""


def flip(data: bytes, rng: random.Random) -> bytes:
    """One bit, or one byte, or a few, somewhere."""
    if not data:
        return data
    changed = bytearray(data)
    # Half of them near the ends, where headers and directories are.
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        near = rng.randrange(min(len(data), 300))
        place = rng.choice([rng.randrange(len(data)), near, len(data) - 1 - near])
        changed[place] = rng.choice([changed[place] ^ 1 << rng.randrange(8), 0, 255])
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """The beginning, at times nothing or all but a byte."""
    return data[: rng.choice([0, 1, len(data) // 2, max(len(data) - 1, 0), _place(data, rng)])]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    """Without a piece in the middle."""
    begin = _place(data, rng)
    return data[:begin] + data[begin + rng.randrange(1, 64) :]


def put_in(data: bytes, rng: random.Random) -> bytes:
    """With a piece of something else, or of itself, in the middle."""
    begin, other = _place(data, rng), _place(data, rng)
    piece = rng.choice([rng.randbytes(rng.randrange(1, 64)), data[other : other + 64], b"\0" * 512])
    return data[:begin] + piece + data[begin:]


def widen_number(data: bytes, rng: random.Random) -> bytes:
    """With an extreme whole number over 2, 4 or 8 bytes."""
    width = rng.choice([2, 4, 8])
    number = rng.choice([0, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), rng.getrandbits(8 * width)])
    begin = _place(data, rng)
    return data[:begin] + number.to_bytes(width, "little") + data[begin + width :]


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


BYTES: list[Callable[[bytes, random.Random], bytes]] = [
    *(flip, flip, flip),
    *(truncate, cut_out, put_in, widen_number),
]


def damage_bytes(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Some damage, and its name."""
    how = rng.choice(BYTES)
    return how(data, rng), how.__name__


def damage_json(values: Json, rng: random.Random) -> tuple[bytes, str]:
    """JSON text of values, changed in one or two places, or no JSON any more."""
    if rng.random() < 0.15:
        text = rng.choice(
            [
                *("", "null", "[]", "5", '"a"', "{", "[" * 100_000, '{"a":' * 5000, "NaN"),
                *('{"K": ' + "9" * 5000 + "}", "\ufeff{}", "{}{}", '{"a": 1, "a": 2}'),
            ]
        )
        return text.encode(), "other JSON"
    values = copy.deepcopy(values)
    for _ in range(rng.choice([1, 1, 2])):
        values = _changed(values, rng)
    text = json.dumps(values)
    # A lone surrogate as JSON escapes it, or as bytes that are no UTF-8.
    data = text.encode() if rng.random() < 0.9 else text.encode("utf-16")
    return damage_bytes(data, rng) if rng.random() < 0.1 else (data, "JSON")


def _changed(values: Json, rng: random.Random) -> Json:
    """A copy with something odd somewhere."""
    if isinstance(values, dict) and values and rng.random() < 0.9:
        key = rng.choice(list(values))
        how = rng.random()
        if how < 0.1:
            del values[key]
        elif how < 0.2:
            values[str(rng.choice(NAMES))] = _odd(rng)
        else:
            values[key] = _changed(values[key], rng)
        return values
    if isinstance(values, list) and values and rng.random() < 0.7:
        values[rng.randrange(len(values))] = _odd(rng)
        return values
    return _odd(rng)


def _odd(rng: random.Random) -> Json:
    """An odd value of its own: one that cases share would keep what is done to it."""
    return copy.deepcopy(rng.choice(ODD))


def damage_file(path: Path, outside: Path, rng: random.Random) -> str:
    """Damage a file, or put something else in its place; say what."""
    how = rng.choice(["bytes"] * 6 + ["removed", "folder", "link", "dangling", "loop", "pipe"])
    if how == "bytes":
        data, name = damage_bytes(path.read_bytes(), rng)
        path.write_bytes(data)
        return f"{name} {path.name}"
    path.unlink()
    match how:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(outside)
        case "dangling":
            path.symlink_to(outside.with_name("nowhere"))
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
    return f"{how} {path.name}"
