"""Frozen graphs as files in memory, damaged in ways that only they have."""

import random
import struct

import numpy as np

from tests.openai_files import DTYPES, constant, field, fixed32, node, shape_message, tensor, varint

from .damage import damage_bytes
from .variables import Arrays


def to_graph(arrays: Arrays, rng: random.Random) -> tuple[bytes, list[str]]:
    """A frozen graph of these constants, and what was done to it."""
    nodes, damage = [node("input/image", "Placeholder")], []
    odd = rng.choice(list(arrays)) if arrays and rng.random() < 0.35 else None
    in_fields = rng.random() < 0.2
    for name, array in arrays.items():
        if name == odd:
            changed, how = _odd_constant(name, array, rng)
            nodes.append(changed)
            damage.append(f"{how} of a constant")
        else:
            values = _in_fields(array, rng) if in_fields else None
            nodes.append(constant(name, tensor(array, values), DTYPES[array.dtype.name]))
        nodes.append(node(f"{name}/read", "Identity", field(3, name.encode())))
    if rng.random() < 0.3:  # what a graph holds beside weights
        nodes.append(constant("model/0/0/Shape", tensor(np.array([1, 2], np.int32)), 3))
        nodes.append(constant("label", field(1, 7) + field(8, b"text"), 7))
    nodes.append(field(4, field(1, 27)))
    if rng.random() < 0.15:
        damage.append(_damage_nodes(nodes, rng))
    content = b"".join(nodes)
    if rng.random() < 0.1:
        content, how = damage_bytes(content, rng)
        damage.append(f"{how} of the graph")
    return content, damage


def _in_fields(array: np.ndarray, rng: random.Random) -> bytes | None:
    """The values in another field than that of raw bytes, where there is one."""
    if array.dtype == np.int32:
        numbers = [int(number) for number in array.reshape(-1)]
        if rng.random() < 0.5:
            return b"".join(field(7, number) for number in numbers)
        return field(7, b"".join(varint(number) for number in numbers))
    if array.dtype == np.float32:
        content = array.astype("<f4").tobytes()
        if rng.random() < 0.5:
            return field(5, content)
        parts = [content[place : place + 4] for place in range(0, len(content), 4)]
        return b"".join(fixed32(5, part) for part in parts)
    return None


def _odd_constant(name: str, array: np.ndarray, rng: random.Random) -> tuple[bytes, str]:
    """A node whose constant is not what it says, or says more than is there."""
    dtype, good = DTYPES[array.dtype.name], tensor(array)
    head = field(1, dtype) + field(2, shape_message(array.shape))
    content = array.tobytes()
    how = rng.choice(["shape", "filled", "kind", "length", "field", "twice", "node", "wire"])
    match how:
        case "shape":
            shapes = [(), (0,), (-1,), (10**18,), (1,) * 100, (2**20, 2**10), (2**14, 2**14)]
            shape = shape_message(rng.choice([*shapes, array.shape[::-1], (*array.shape, 1)]))
            values = rng.choice([b"", field(5, b"\0\0\x80?"), field(4, content)])
            good = field(1, dtype) + field(2, shape) + values
        case "filled":  # by the last of fewer values, or by none
            few = content[: rng.choice([0, 4, 8, 5])]
            good = head + rng.choice([field(5, few), b"", field(7, 7), field(7, b"\1\2")])
        case "kind":
            kind = rng.choice([0, 2, 3, 7, 9, 14, 19, 42, 2**64 - 1])
            good = field(1, kind) + field(2, shape_message(array.shape)) + field(4, content)
        case "length":
            good = head + field(4, rng.choice([content[:-1], content + b"\0", content * 2, b""]))
        case "field":
            odd = [field(6, content), field(7, content), field(8, b"x"), field(10, 5), field(4, 5)]
            odd += [field(5, 5), field(7, varint(2**40)), field(7, b"\xff" * 20), field(16, b"x")]
            good = rng.choice([head, good]) + rng.choice([*odd, fixed32(5, struct.pack("<f", 1))])
        case "twice":
            return constant(name, good, dtype) * 2, how
        case "node":
            pairs = [field(5, field(1, b"value")), field(5, field(2, b"")), field(5, b""), b""]
            pairs += [field(5, field(1, b"value") + field(2, field(3, 1))), field(5, 5)]
            return node(name, rng.choice(["Const", "Variable", ""]), rng.choice(pairs)), how
        case "wire":
            odd = [b"\x0b" * 1000, b"\x08" + b"\x80" * 20, b"\x12\xff\xff\x7f", b"\0", b"\x0f"]
            odd += [_nested(rng.choice([10, 300])), b"\x08\1" * 10**5, field(2, field(3, 1))]
            good = rng.choice([good + rng.choice(odd), rng.choice(odd) + good])
    return constant(name, good, dtype), how


def _nested(depth: int) -> bytes:
    """A message in a message, and so on."""
    content = b""
    for _ in range(depth):
        content = field(2, content)
    return content


def _damage_nodes(nodes: list[bytes], rng: random.Random) -> str:
    """Nodes in another order, lost or doubled, or other fields between them."""
    place = rng.randrange(len(nodes))
    how = rng.choice(["order", "drop", "double", "bytes", "field", "many"])
    match how:
        case "order":
            rng.shuffle(nodes)
        case "drop":
            del nodes[place]
        case "double":
            nodes.append(nodes[place])
        case "bytes":
            nodes[place] = damage_bytes(nodes[place], rng)[0]
        case "field":
            odd = [field(2, b"x" * 1000), field(1, 5), field(1, b""), b"\x0b\x0c", field(99, 1)]
            odd += [
                field(1, _nested(300)),
                field(1, b"\xff" * 20),
                b"\x80" * 30,
                fixed32(9, b"1234"),
            ]
            nodes.insert(place, rng.choice(odd))
        case "many":
            nodes += [node(f"n{number}", "Add") for number in range(rng.choice([10, 5000]))]
    return f"{how} of the nodes"
