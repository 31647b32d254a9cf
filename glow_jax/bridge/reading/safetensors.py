"""Files of the safetensors format: the length of a JSON header, the header, the tensors."""

import io
import json
from collections.abc import Mapping
from typing import IO

from glow_jax.bridge.reading.budget import Budget, first_sentence
from glow_jax.bridge.reading.tensors import Storage, StoredTensor, TensorReader
from glow_jax.errors import GlowError, shown

# The published model's has 100,000 bytes. The format itself allows 100 MB.
_LARGEST_HEADER = 10_000_000

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def is_safetensors(file: IO[bytes]) -> bool:
    """Whether a file begins like one of safetensors; it is left at its beginning."""
    begin = file.read(9)
    file.seek(0)
    return len(begin) == 9 and begin[5:] == b"\0\0\0{"


def read_safetensors(
    file: IO[bytes], name: str, budget: Budget
) -> tuple[dict[str, StoredTensor], TensorReader]:
    """The tensors that a file describes, and what reads them.

    Raises:
        GlowError: the file is damaged, or too large.
    """
    length = int.from_bytes(file.read(8), "little")
    end = file.seek(0, io.SEEK_END)
    if length > min(_LARGEST_HEADER, end - 8):
        raise GlowError(
            f"{name} is damaged, or no safetensors file: its header is to have {length} bytes."
        )
    file.seek(8)
    try:
        header = json.loads(file.read(length))
        described = {key: entry for key, entry in header.items() if key != "__metadata__"}
        places = {key: _place(entry, end - 8 - length) for key, entry in described.items()}
        tensors = {key: _tensor(key, entry) for key, entry in described.items()}
    except Exception as error:  # the header can hold anything
        raise GlowError(
            f"{name} is a damaged safetensors file: {first_sentence(error)}."
        ) from error

    def load(storage: Storage) -> bytes:
        begin, stop = places[storage.key]
        budget.take(stop - begin, f"the tensor of key '{shown(storage.key)}'")
        file.seek(8 + length + begin)
        return file.read(stop - begin)

    return tensors, TensorReader(load, budget)


def _place(entry: Mapping[str, object], size: int) -> tuple[int, int]:
    """Where the bytes of a tensor begin and end."""
    match entry["data_offsets"]:
        case [int(begin), int(stop)] if 0 <= begin <= stop <= size:
            return begin, stop
    raise ValueError(f"a tensor lies at {shown(entry['data_offsets'])} of {size} bytes")


def _tensor(key: str, entry: Mapping[str, object]) -> StoredTensor:
    dtype = _DTYPES.get(str(entry["dtype"]), str(entry["dtype"]))
    match entry["shape"]:
        case list(sizes) if all(type(size) is int and size >= 0 for size in sizes):
            pass
        case other:
            raise ValueError(f"a tensor has shape {shown(other)}")
    return StoredTensor.contiguous(key, dtype, tuple(sizes))
