"""Pickles, read without Python's unpickler: nothing that they name is imported or called.

A pickle is a list of instructions for a stack machine. Here the instructions that make numbers,
text and containers do so, and those that call something make a note of its name instead. The few
names by which PyTorch describes a tensor are understood.
"""

import io
import pickletools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import IO, Any, cast

from glow_jax.bridge.reading.tensors import Storage, StoredTensor, described
from glow_jax.errors import GlowError, shown

# The published model takes about 250,000 with its optimizer.
_MOST_INSTRUCTIONS = 3_000_000
_WORTH_A_LOOK = 2**16

_MARK = object()


@dataclass(frozen=True, eq=False, repr=False)
class Named:
    """Something that a pickle names, and that is not looked up.

    Attributes:
        name: its module and name, with a dot between.
    """

    name: str

    def __repr__(self) -> str:
        """As it may stand in a message."""
        return f"the name {self.name}"


@dataclass(frozen=True, eq=False, repr=False)
class Foreign:
    """What a pickle would have made by calling something, and what is not made.

    Attributes:
        name: module and name of what would have been called.
    """

    name: str

    def __repr__(self) -> str:
        """As it may stand in a message."""
        return f"an object that {self.name} makes"


def read_pickle(file: IO[bytes], storage_of: Callable[[object], object]) -> object:
    """Read one pickle; the file then stands behind its end.

    Args:
        file: the pickle.
        storage_of: what a reference to something outside the pickle stands for.

    Returns:
        Numbers, text, bytes, tuples, lists, dicts, `StoredTensor`s, `Named` and `Foreign` things.

    Raises:
        ValueError: it is no pickle, or a damaged one; so do other exceptions.
    """
    machine = _Machine(storage_of)
    reader = cast(IO[bytes], _Reader(file))
    for count, (instruction, argument, _) in enumerate(pickletools.genops(reader)):
        if count > _MOST_INSTRUCTIONS:
            raise GlowError(
                f"it has more than {_MOST_INSTRUCTIONS:,} instructions, ten times what the "
                "published model takes with its optimizer"
            )
        machine.run(instruction.name, argument)
    (result,) = machine.stack
    return result


class _Reader:
    """A file that is asked for no more than it has: a length in a pickle may be any number."""

    def __init__(self, file: IO[bytes]) -> None:
        begin = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(begin)
        self._file = file
        self.readline, self.tell = file.readline, file.tell

    def read(self, size: int) -> bytes:
        """At most `size` bytes, for which memory is taken only if they are there."""
        if size > _WORTH_A_LOOK:
            size = min(size, self._end - self._file.tell())
        return self._file.read(size)


class _Machine:
    """A stack, and the values that may be asked for again."""

    def __init__(self, storage_of: Callable[[object], object]) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storage_of = storage_of

    def run(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _MADE:
            stack.append(_MADE[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name in _PACKED:
            count = _PACKED[name]
            parts = self._marked() if count is None else self._last(count)
            stack.append(list(parts) if name == "LIST" else tuple(parts))
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            parts = self._last(2) if name == "SETITEM" else self._marked()
            if name == "DICT":
                stack.append({})
            if isinstance(stack[-1], dict):
                _add_pairs(stack[-1], parts)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            parts = self._last(1) if name == "APPEND" else self._marked()
            if isinstance(stack[-1], list):
                stack[-1].extend(parts)
        elif name in ("POP", "DUP", "POP_MARK"):
            self._drop_or_double(name)
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._refer_or_call(name, argument)

    def _drop_or_double(self, name: str) -> None:
        if name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            self.stack.pop()

    def _refer_or_call(self, name: str, argument: Any) -> None:
        """The instructions that name something, or would call it."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(Named(".".join(argument.split(" ", 1))))
        elif name == "STACK_GLOBAL":
            stack.append(Named(".".join(map(str, self._last(2)))))
        elif name in ("BINPERSID", "PERSID"):
            stack.append(self._storage_of(stack.pop() if name == "BINPERSID" else argument))
        elif name == "BUILD":
            stack.pop()  # attributes of an object that is not made, or a dict's `_metadata`
        elif name == "REDUCE":
            called, arguments = self._last(2)
            stack.append(_call(called, arguments))
        elif name in ("NEWOBJ", "NEWOBJ_EX"):
            made = self._last(2 if name == "NEWOBJ" else 3)
            stack.append(Foreign(_name_of(made[0])))
        elif name in ("OBJ", "INST"):
            parts = self._marked()
            made = Named(".".join(argument.split(" ", 1))) if name == "INST" else parts[0]
            stack.append(Foreign(_name_of(made)))
        else:
            raise ValueError(f"its instruction {name} is not one that weights need")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("it takes more values than it has made")
        parts = self.stack[-count:]
        del self.stack[-count:]
        return parts

    def _marked(self) -> list[Any]:
        """The values behind the last mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                parts = self.stack[place + 1 :]
                del self.stack[place:]
                return parts
        raise ValueError("it looks for a mark that it never made")


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
    *("BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_MADE: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}
_PACKED = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "LIST": None, "FROZENSET": None}


def _add_pairs(target: dict[Hashable, Any], parts: list[Any]) -> None:
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        # A tuple could be nested so deeply that hashing it ends the process.
        if not isinstance(key, str | int | float | bytes | None):
            key = Foreign(f"a key that is {described(key)}")
        target[key] = value


def _name_of(called: object) -> str:
    return called.name if isinstance(called, Named | Foreign) else type(called).__name__


def _call(called: object, arguments: Any) -> object:
    """What a call would have made, if it is a container or a tensor."""
    name = _name_of(called)
    if name in ("collections.OrderedDict", "collections.defaultdict"):
        pairs = arguments[0] if name.endswith("OrderedDict") and arguments else []
        made: dict[Hashable, Any] = {}
        _add_pairs(made, [part for pair in pairs for part in pair])
        return made
    if name == "torch.Size":
        return tuple(arguments[0])
    if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return arguments[0]
    if name == "torch._tensor._rebuild_from_type_v2":
        return _call(arguments[0], arguments[2])
    if name.startswith("torch._utils._rebuild_tensor"):
        storage, offset, shape, strides = arguments[:4]
        dtype = _name_of(arguments[6]) if name.endswith("_v3") else ""
        if isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple):
            dtype = dtype.removeprefix("torch.") or storage.dtype
            return StoredTensor(storage, dtype, storage.begin + offset, shape, strides)
    return Foreign(name)


def storage_dtype(kind: object) -> str:
    """The kind of a storage's elements, by the name of its class."""
    name = _name_of(kind).rpartition(".")[2]
    return _STORAGES.get(name, shown(name))


_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
