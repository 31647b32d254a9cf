"""`model.safetensors`: every array of a model in one file.

The name of an array is the path that leads to it in the model, `levels.0.steps.actnorm.bias`.
Arrays of a level's K steps have a leading axis of length K. Numbers are float32, orders of channels
int32.
"""

import hashlib
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import numpy as safetensors

from glow_jax.errors import GlowError, first_line, shown
from glow_jax.model import Glow
from glow_jax.runs.inside import open_inside

# The header has 200 bytes for each array. Read, it takes thirty times its size.
_LARGEST_HEADER = 10_000_000
# safetensors copies the numbers out of the file's content, and JAX may copy them once more.
_COPIES = 2
# What a container may have, as Linux says by either version of its control groups. What it has
# counts cached files too, which make room.
_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def most_bytes(abstract: Glow) -> int:
    """How large the file of a model may be."""
    return _needed_bytes(abstract) + _LARGEST_HEADER


def _needed_bytes(abstract: Glow) -> int:
    leaves = _variables(abstract).values()
    return sum(math.prod(leaf.shape) * _in_file(leaf).itemsize for leaf in leaves)


def _in_file(array: nnx.Variable) -> np.dtype:
    """The dtype that an array has in a file, also where JAX has float64 by default."""
    kinds = {"f": np.float32, "i": np.int32}
    return np.dtype(kinds.get(array.dtype.kind, array.dtype))


def check_memory(name: str, abstract: Glow) -> None:
    """Refuse a model that would not fit into memory, before any of its numbers is read.

    A configuration claims any size at no cost, and so does a file with holes.

    Args:
        name: the model's, as it may stand in a message.
        abstract: the model's shapes.

    Raises:
        GlowError: it would not fit.
    """
    is_widened = jax.dtypes.canonicalize_dtype(np.float64) == np.float64  # JAX's copy is float64
    copies = _COPIES + is_widened
    needed, free = copies * _needed_bytes(abstract), _free_memory()
    if needed > free:
        raise GlowError(
            f"{name} would take {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are free: "
            "load it on a machine with more, if you trust its sizes."
        )


def _free_memory() -> int:
    """The bytes that this machine or container can still give."""
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):  # Linux alone tells what of it is free
        told = re.search(r"^MemAvailable: *(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
        known += [1024 * int(told[1])] if told else []
    for path in map(Path, _CONTAINER):
        with suppress(OSError, ValueError):  # a container without a limit has no number there
            known.append(int(path.read_text()))
    return min(known)


def read_weights(path: Path, abstract: Glow, sha256: str) -> Glow:
    """The model of a file, which must hold the arrays of the model and no others.

    Args:
        path: the file.
        abstract: the model's shapes.
        sha256: the digest that the file should have.

    Raises:
        GlowError: the file is missing, damaged, or of another model.
    """
    arrays = _arrays(_content(path, abstract), path, sha256)
    _check_match(path, _variables(abstract), arrays)
    infinite = _first_infinite(arrays)
    if infinite is not None:
        raise GlowError(f"{path} is damaged: {infinite} has numbers that are not finite.")
    return _filled(abstract, arrays)


def _arrays(content: bytes, path: Path, sha256: str) -> dict[str, np.ndarray]:
    """The arrays in the content of a file."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise GlowError(f"{path} is damaged: its SHA-256 differs from what its model states.")
    header = int.from_bytes(content[:8], "little")
    if header > _LARGEST_HEADER:
        raise GlowError(
            f"{path} is a damaged safetensors file: it claims a header of {header} bytes, and "
            f"{_LARGEST_HEADER} are enough for any model."
        )
    try:
        return safetensors.load(content)
    except Exception as error:  # whatever a stranger's header makes the library raise
        raise GlowError(f"{path} is a damaged safetensors file: {first_line(error)}.") from error


def _content(path: Path, abstract: Glow) -> bytes:
    """The bytes of a file, once it is seen that there are as many as the model needs."""
    needed = _needed_bytes(abstract)
    try:
        with open_inside(path, os.O_RDONLY) as file:
            size = os.fstat(file.fileno()).st_size
            if not needed < size <= most_bytes(abstract):
                raise GlowError(
                    f"{path} has {size} bytes, and its model has {needed} bytes of numbers: it "
                    "belongs to another model, or is damaged."
                )
            check_memory(str(path), abstract)
            return file.read(size)
    except FileNotFoundError:
        raise GlowError(f"{path} is missing: fetch the model again.") from None


def _check_match(
    path: Path, wanted: Mapping[str, nnx.Variable], found: Mapping[str, np.ndarray]
) -> None:
    """Refuse arrays that are not those of the model.

    Raises:
        GlowError: names the first.
    """

    def kind(dtype: np.dtype, shape: tuple[int, ...]) -> str:
        return f"{dtype} of shape {tuple(shape)}"

    for name in sorted(set(wanted) | set(found)):
        here = kind(_in_file(wanted[name]), wanted[name].shape) if name in wanted else "absent"
        there = kind(found[name].dtype, found[name].shape) if name in found else "absent"
        if there != here:
            raise GlowError(
                f"{path} does not match its model: {shown(name)} is {there} there and {here} by "
                "the configuration."
            )


def _first_infinite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The name of the first array with numbers that are infinite or none; None if all are well."""
    floats = (name for name, array in arrays.items() if array.dtype.kind == "f")
    return next((name for name in floats if not np.isfinite(arrays[name]).all()), None)


def _variables(model: Glow) -> dict[str, nnx.Variable]:
    """The variables of a model by their names in a file."""
    return {_name(path): leaf for path, leaf in nnx.to_flat_state(nnx.state(model))}


def _name(path: tuple[object, ...]) -> str:
    return ".".join(map(str, path))


def _filled(abstract: Glow, arrays: Mapping[str, np.ndarray]) -> Glow:
    filled = [
        (path, leaf.replace(jnp.asarray(arrays[_name(path)], leaf.dtype)))
        for path, leaf in nnx.to_flat_state(nnx.state(abstract))
    ]
    model = nnx.clone(abstract)
    nnx.update(model, nnx.from_flat_state(filled))
    return model


def in_a_file(model: Glow) -> bytes:
    """The content of a model's file.

    Raises:
        GlowError: the model is not in float32, or has numbers that are not finite.
    """
    arrays = {name: np.asarray(leaf[...]) for name, leaf in _variables(model).items()}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and array.dtype != np.float32:
            raise GlowError(
                f"{name} of the model is {array.dtype}; a model folder holds float32: convert the "
                "model first, knowing what is lost."
            )
    infinite = _first_infinite(arrays)
    if infinite is not None:
        raise GlowError(f"The model is of no use to others: {infinite} has infinities or NaN.")
    return safetensors.save(arrays, metadata={"format": "flax"})
