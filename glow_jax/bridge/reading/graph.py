"""Frozen graphs of TensorFlow: the constants of a GraphDef, which the trained values are.

The fields are those of TensorFlow's `graph.proto`, `node_def.proto` and `tensor.proto`. Freezing
leaves the reading of each variable as a node `<name>/read`, which tells variables from other
constants. Whatever else a graph holds is passed over. The file is mapped into memory, not copied;
it has no checksum.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, NamedTuple

from glow_jax.bridge.reading.budget import Budget, check_expansion, first_sentence
from glow_jax.bridge.reading.protobuf import (
    Messages,
    Value,
    as_bytes,
    as_number,
    signed,
    unpack_varints,
)
from glow_jax.bridge.reading.table import LONGEST_NAME
from glow_jax.bridge.reading.tensors import Storage, StoredTensor, TensorReader
from glow_jax.bridge.reading.variables import (
    dtype_of,
    is_numeric,
    name_of,
    read_shape,
    size_of,
)
from glow_jax.errors import GlowError, shown

_MOST_FIELDS = 2_000_000  # the whole graph's; nodes that are no constants count two or three
_BYTES_OF_A_DESCRIPTION = 1000  # what Python takes for one
_CONTENT, _FLOATS, _INTS = 4, 5, 7
_READ = "/read"
_FILLED_AT_ONCE = 2**16


@dataclass(frozen=True)
class _Constant:
    """A constant: what it is declared as, and its TensorProto."""

    tensor: StoredTensor
    message: memoryview


@dataclass(frozen=True)
class Graph:
    """A frozen graph.

    Attributes:
        tensors: its constants by name.
        variables: the names of what were variables, by the nodes that read them.
        reader: reads the constants.
    """

    tensors: dict[str, StoredTensor]
    variables: frozenset[str]
    reader: TensorReader


def read_graph(file: IO[bytes], name: str, budget: Budget) -> Graph:
    """The constants of a frozen graph, and what reads them.

    Args:
        file: the graph, which stays open.
        name: its name, as it may stand in a message.
        budget: the memory that its constants may take.

    Raises:
        GlowError: it is damaged, or no graph with constants.
    """
    content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        constants, variables = _nodes(content, name, budget)
    except GlowError:
        raise
    except Exception as error:  # a damaged graph can hold anything
        raise GlowError(
            f"{name} is damaged, or no frozen graph of TensorFlow: {first_sentence(error)}."
        ) from error
    if not constants:
        raise GlowError(f"{name} holds no constants: it is no frozen graph of TensorFlow.")

    filled = 0

    def load(storage: Storage) -> bytearray:
        nonlocal filled
        constant = constants[storage.key]
        size = size_of(constant.tensor)
        key = f"the tensor of key '{shown(storage.key)}'"
        budget.take(size, key)
        # A shape and one value are a whole tensor, which is as good as a compressed one.
        filled += size
        check_expansion(filled, len(content), "what it holds")
        try:
            return _values(constant, size)
        except ValueError as error:
            raise GlowError(f"{key} is damaged: {first_sentence(error)}.") from error

    tensors = {key: constant.tensor for key, constant in constants.items()}
    return Graph(tensors, variables, TensorReader(load, budget, shared=False))


def _nodes(
    content: memoryview, name: str, budget: Budget
) -> tuple[Mapping[str, _Constant], frozenset[str]]:
    """The constants of a GraphDef by the names of their nodes, and the names of variables."""
    messages = Messages(_MOST_FIELDS)
    constants: dict[str, _Constant] = {}
    variables: set[str] = set()
    for number, value in messages.fields(content):
        if number != 1:
            continue
        node = _node(messages, as_bytes(value))
        if node.operation == b"Const":
            budget.take(_BYTES_OF_A_DESCRIPTION, name)
            key = name_of(node.name, LONGEST_NAME)
            if key in constants:
                raise ValueError(f"the constant '{shown(key)}' is there twice")
            if node.tensor is None:
                raise ValueError(f"the constant '{shown(key, 80)}' has no value")
            constants[key] = _declared(messages, key, as_bytes(node.tensor), budget.limit)
        elif node.operation == b"Identity" and bytes(node.name[-len(_READ) :]) == _READ.encode():
            budget.take(_BYTES_OF_A_DESCRIPTION, name)
            variables.add(name_of(node.name, LONGEST_NAME).removesuffix(_READ))
    return constants, frozenset(variables)


class _Node(NamedTuple):
    """A node of a graph: what it is called, what it does, and its value if it is a constant."""

    name: memoryview
    operation: memoryview
    tensor: Value | None


def _node(messages: Messages, node: memoryview) -> _Node:
    """A node, of which nothing more is looked at once it is seen not to matter."""
    name, operation, tensor = memoryview(b""), memoryview(b""), None
    for number, value in messages.fields(node):
        if number == 1:
            name = as_bytes(value)
        elif number == 2:
            operation = as_bytes(value)
            if operation not in (b"Const", b"Identity"):
                break
        elif number == 5:
            attribute = as_bytes(value)
            if messages.last(attribute, 1) == b"value":
                content = messages.last(attribute, 2)
                tensor = None if content is None else messages.last(as_bytes(content), 8)
    return _Node(name, operation, tensor)


def _declared(messages: Messages, key: str, message: memoryview, limit: int) -> _Constant:
    """A constant whose kind and shape agree with the bytes that are there for its values."""
    kind, shape, stored = 0, (), 0
    for number, value in messages.fields(message):
        if number == 1:
            kind = as_number(value)
        elif number == 2:
            shape = read_shape(messages, as_bytes(value))
        elif number == _CONTENT:
            stored = len(as_bytes(value))
    dtype = dtype_of(kind)
    tensor = StoredTensor.contiguous(key, dtype, shape)
    if is_numeric(dtype):
        size = size_of(tensor)
        if stored and stored != size:
            raise ValueError(
                f"'{shown(key)}' has {stored} bytes for {dtype} of shape {shown(shape)}"
            )
        if size > limit:  # one value may stand for all
            raise ValueError(f"'{shown(key)}' is to have shape {shown(shape)}")
    return _Constant(tensor, message)


def _values(constant: _Constant, size: int) -> bytearray:
    """The bytes of a constant: as they stand, or from a list, whose last value fills the rest."""
    dtype = constant.tensor.dtype
    values = bytearray()
    for number, value in Messages(_MOST_FIELDS).fields(constant.message):
        if number == _CONTENT and value:
            if len(as_bytes(value)) != size:
                raise ValueError("its values do not fit its shape")
            return bytearray(as_bytes(value))
        if number == _FLOATS and dtype == "float32":
            values += as_bytes(value)
        elif number == _INTS and dtype == "int32":
            values += _integers(value, size)
        elif number >= _FLOATS:
            raise ValueError("its values are of another kind, or are not stored as weights are")
        if len(values) > size:
            raise ValueError("it has more values than its shape says")
    if len(values) % 4 or (not values and dtype not in ("float32", "int32")):
        raise ValueError("its values are cut short")
    last = bytes(values[-4:] or 4)
    while len(values) < size:
        values += last * min(_FILLED_AT_ONCE, (size - len(values)) // len(last))
    return values


def _integers(value: Value, size: int) -> bytearray:
    """One whole number, or a packed list of them, as int32."""
    integers = bytearray()
    for number in [value] if isinstance(value, int) else unpack_varints(value):
        if not -(2**31) <= signed(number) < 2**31:
            raise ValueError(f"it holds {signed(number)}, which is no int32")
        integers += signed(number).to_bytes(4, "little", signed=True)
        if len(integers) > min(size, 4 * _MOST_FIELDS):
            raise ValueError("it has too many values")
    return integers
