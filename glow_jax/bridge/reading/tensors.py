"""Tensors of a file: described first, checked, and read only when they are wanted."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glow_jax.bridge.reading.budget import Budget
from glow_jax.errors import GlowError, shown

Shape = tuple[int, ...]

_DTYPES = {
    "float64": np.dtype("f8"),
    "float32": np.dtype("f4"),
    "float16": np.dtype("f2"),
    "bfloat16": np.dtype("u2"),
    "int64": np.dtype("i8"),
    "int32": np.dtype("i4"),
    "int16": np.dtype("i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
_PLAIN = (bool, int, float, str, bytes, bytearray, tuple, list, dict)
HALF_PRECISION = ("float16", "bfloat16")
MOST_AXES = 8


def width_of(dtype: str) -> int:
    """The bytes of an element; 1 for a kind that is unknown."""
    return _DTYPES[dtype].itemsize if dtype in _DTYPES else 1


@dataclass(frozen=True, eq=False)
class Storage:
    """A block of memory in a file, which tensors are views of.

    Attributes:
        key: its name in the file.
        dtype: the kind of its elements, as PyTorch calls it.
        numel: the number of its elements, as the file declares.
        begin: the element at which the view of it begins, in files older than PyTorch 0.4.
    """

    key: str
    dtype: str
    numel: int
    begin: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class StoredTensor:
    """A tensor as a file describes it; nothing is checked yet.

    Attributes:
        storage: where its elements are.
        dtype: the kind of its elements, as PyTorch calls it.
        offset: the place of the first element in the storage.
        shape: its sizes.
        strides: the steps from element to element along each axis, counted in elements.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: Shape
    strides: Shape

    def __repr__(self) -> str:
        """As it may stand in a message."""
        return f"a tensor of shape {shown(self.shape)}"

    @classmethod
    def contiguous(cls, key: str, dtype: str, shape: Shape) -> "StoredTensor":
        """A tensor that is alone in its storage, value by value, the last axis fastest."""
        strides = [1]
        for size in reversed(shape[1:]):
            strides.append(strides[-1] * size)
        storage = Storage(key, dtype, math.prod(shape))
        return cls(storage, dtype, 0, shape, tuple(reversed(strides[: len(shape)])))

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def is_same(self, other: "StoredTensor") -> bool:
        """Whether both are the same view of the same storage."""
        mine, theirs = (
            (t.storage.key, t.dtype, t.offset, t.shape, t.strides) for t in (self, other)
        )
        return mine == theirs


def described(value: object) -> str:
    """What kind of thing a value from a file is, as it may stand in a message."""
    if value is None or value == {}:
        return "nothing"
    if type(value) not in _PLAIN:
        return shown(value)
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


class TensorReader:
    """Makes arrays of a file's tensors."""

    def __init__(
        self,
        load: Callable[[Storage], bytes | bytearray],
        budget: Budget,
        *,
        swapped: bool = False,
        shared: bool = True,
    ) -> None:
        """Nothing is read yet.

        Args:
            load: reads the bytes of a storage, and counts them in the budget.
            budget: the memory that the file may take.
            swapped: whether the bytes of each element are in the order of the big end first.
            shared: whether tensors may share a storage, which is then read once and kept.
        """
        self._load = load
        self._budget = budget
        self._order = ">" if swapped else "<"
        self._shared = shared
        self._loaded: dict[str, bytes | bytearray] = {}

    def read(self, tensor: StoredTensor, key: str) -> np.ndarray:
        """The values of a tensor; half precision as float32.

        Args:
            tensor: the tensor.
            key: its key in the file, for messages.

        Raises:
            GlowError: the file is damaged, or the tensor is of a kind that weights never are.
        """
        name = f"the tensor of key '{shown(key)}'"
        dtype = self._check(tensor, name)
        if tensor.storage.key in self._loaded:
            self._budget.take(tensor.numel * dtype.itemsize, name)
            content = self._loaded[tensor.storage.key]
        else:
            content = self._load(tensor.storage)
        if self._shared:
            self._loaded[tensor.storage.key] = content
        if len(content) != tensor.storage.numel * _DTYPES[tensor.storage.dtype].itemsize:
            raise GlowError(
                f"{name} is damaged: its file has {len(content)} bytes and declares "
                f"{shown(tensor.storage.numel)} elements of type {tensor.storage.dtype}."
            )
        flat = np.frombuffer(content, dtype, len(content) // dtype.itemsize)
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        array = np.ndarray(tensor.shape, dtype, flat, tensor.offset * dtype.itemsize, strides)
        if tensor.dtype in HALF_PRECISION:
            self._budget.take(4 * tensor.numel, name)
            if tensor.dtype == "bfloat16":  # the upper half of a float32
                return (array.astype("u4") << 16).view("f4")
            return array.astype("f4")
        return array.astype(dtype.newbyteorder("="), order="C", copy=False)

    def widen(self, array: np.ndarray, dtype: np.dtype, key: str) -> np.ndarray:
        """An array in another type; the same one if it has the type already.

        Raises:
            GlowError: there is no memory left for it.
        """
        if array.dtype != dtype:
            self._budget.take(array.size * dtype.itemsize, f"the tensor of key '{shown(key)}'")
        return array.astype(dtype, copy=False)

    def _check(self, tensor: StoredTensor, name: str) -> np.dtype:
        """The type of the elements, where the description makes sense."""
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None or tensor.storage.dtype not in _DTYPES:
            raise GlowError(
                f"{name} is of a kind that weights never have ({shown(tensor.dtype)} on "
                f"{shown(tensor.storage.dtype)})."
            )
        numbers = (tensor.offset, tensor.storage.numel, *tensor.shape, *tensor.strides)
        if len(tensor.shape) > MOST_AXES or len(tensor.shape) != len(tensor.strides):
            raise GlowError(
                f"{name} has {len(tensor.shape)} axes and {len(tensor.strides)} strides; weights "
                f"have at most {MOST_AXES} of each."
            )
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise GlowError(f"{name} is damaged: its sizes or strides are no whole numbers.")
        held = tensor.storage.numel * _DTYPES[tensor.storage.dtype].itemsize // dtype.itemsize
        last = tensor.offset + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        )
        if 0 in tensor.shape:
            raise GlowError(f"{name} has no values: its shape is {shown(tensor.shape)}.")
        if last >= held or tensor.numel > held:
            raise GlowError(
                f"{name} has shape {shown(tensor.shape)}, but the file stores {shown(held)} values "
                "for it: weights are stored value by value."
            )
        return dtype.newbyteorder(self._order)
