"""How TensorFlow declares a tensor: the kind of its elements, and its shape."""

from dataclasses import dataclass

from glow_jax.bridge.reading.protobuf import Messages, as_bytes, as_number, signed
from glow_jax.bridge.reading.tensors import MOST_AXES, Shape, StoredTensor, width_of
from glow_jax.errors import shown

# The kinds of arrays, by the numbers of TensorFlow's types.proto.
_NUMBERS = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}
_OTHERS = {
    7: "string",
    8: "complex64",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
}


@dataclass(frozen=True)
class Variable:
    """A tensor as a file declares it, which has been checked against the size of the file.

    Attributes:
        dtype: the kind of its elements, as TensorFlow calls it, or "unknown 42".
        shape: its sizes.
    """

    dtype: str
    shape: Shape


def dtype_of(number: int) -> str:
    """TensorFlow's name of a kind of elements."""
    return _NUMBERS.get(number) or _OTHERS.get(number) or f"unknown {number}"


def is_numeric(dtype: str) -> bool:
    """Whether the elements of a kind can be read."""
    return dtype in _NUMBERS.values()


def size_of(tensor: StoredTensor) -> int:
    """The number of bytes of a tensor's values, stored one by one."""
    return tensor.numel * width_of(tensor.dtype)


def name_of(content: bytes | memoryview, longest: int) -> str:
    """A name as text.

    Raises:
        ValueError: it is too long, or no UTF-8.
    """
    if len(content) > longest:
        raise ValueError(f"a name has more than {longest} bytes")
    return bytes(content).decode()


def read_shape(messages: Messages, message: memoryview) -> Shape:
    """The sizes in a TensorShapeProto.

    Raises:
        ValueError: it is damaged, has too many axes, or a size is negative or unknown.
    """
    sizes: list[int] = []
    for number, value in messages.fields(message):
        if number == 3 and value:
            raise ValueError("a shape is unknown")
        if number == 2:
            if len(sizes) == MOST_AXES:
                raise ValueError(f"a tensor has more than {MOST_AXES} axes")
            size = 0
            for inner, content in messages.fields(as_bytes(value)):
                if inner == 1:
                    size = signed(as_number(content))
            sizes.append(size)
    if any(size < 0 for size in sizes):
        raise ValueError(f"a tensor has shape {shown(tuple(sizes))}")
    return tuple(sizes)
