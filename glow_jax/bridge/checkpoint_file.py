"""Checkpoint files of other programs: read in memory, never unpacked to disk, never executed."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from glow_jax.bridge.layouts import BUFFERS
from glow_jax.bridge.reading import archive, pytorch, safetensors, unwrap
from glow_jax.bridge.reading.archive import HPARAMS, Contents
from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, Budget, advising
from glow_jax.bridge.reading.places import open_file
from glow_jax.bridge.reading.settings import LARGEST, parse_settings
from glow_jax.bridge.reading.tensors import HALF_PRECISION, StoredTensor, TensorReader
from glow_jax.bridge.reading.zips import Zip
from glow_jax.errors import GlowError, shown

__all__ = ["HPARAMS", "Checkpoint", "optimizer_read", "read_checkpoint"]

# What the optimizers keep for each parameter; all else that a file keeps there is left unread.
_MOMENTS = ("step", "exp_avg", "exp_inf", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a file, under the keys of the program that wrote it.

    Attributes:
        weights: the model's state dict; floats have at least 32 bits.
        optimizer: the optimizer's state dict, its tensors as arrays; None if there is none.
        hparams: the contents of `hparams.json` in the archive or beside the file, without nulls;
            None if there is none.
        notes: what reading changed or left out, one sentence each.
    """

    weights: dict[str, np.ndarray]
    optimizer: Mapping[str, object] | None
    hparams: Mapping[str, object] | None
    notes: list[str]


@dataclass(frozen=True)
class _Part:
    """The content of one file: plain values and tensors that are not yet read."""

    content: object
    reader: TensorReader
    name: str


def read_checkpoint(
    path: Path,
    optimizer_path: Path | None = None,
    *,
    weights: str | None = None,
    optimizer_state: bool = True,
    memory: int = DEFAULT_LIMIT,
) -> Checkpoint:
    """Read a checkpoint, in any form in which Glow weights are passed around.

    Args:
        path: a state dict or a training checkpoint of any version of PyTorch, a safetensors file,
            or a zip or tar archive of such a file.
        optimizer_path: a file that holds the optimizer's state alone.
        weights: which weights to take, where the file holds several.
        optimizer_state: whether to read the optimizer's state, if there is one.
        memory: the number of bytes that reading may take.

    Raises:
        GlowError: a file is no checkpoint, is damaged, too large, or holds no weights of a Glow.
    """
    if optimizer_path is not None and not optimizer_state:
        raise GlowError("--optimizer and --no_optimizer_state contradict each other: give one.")
    notes: list[str] = []
    budget = Budget(memory)
    with open_file(path) as file:
        contents = _contents(file, path, budget)
        main = _read_part(*contents.found.get("weights", (file, shown(str(path), 200))), budget)
        reading, beside = unwrap.find_weights(main.content, main.name, weights, BUFFERS, notes)
        arrays = _to_arrays(reading.weights, main, notes)
        optimizer = None
        separate = contents.found.pop("optimizer", None)
        if optimizer_path is not None:
            with open_file(optimizer_path) as other, optimizer_read(optimizer_path):
                optimizer = _read_optimizer(other, shown(str(optimizer_path), 200), budget)
        elif optimizer_state and not reading.is_average:
            with optimizer_read(None):
                if found := unwrap.find_optimizer(main.content, main.name):
                    optimizer = _plain(found[1], main.reader)
                    beside.pop(found[0], None)
                elif separate is not None:
                    optimizer = _read_optimizer(*separate, budget)
                    separate = None
    if separate is not None:
        beside[separate[1]] = separate[0]
    if beside:
        notes.append(unwrap.left_out(beside, is_average=reading.is_average))
    hparams = _read_hparams(path, contents)
    return Checkpoint(arrays, optimizer, hparams, notes)


@contextlib.contextmanager
def optimizer_read(given: Path | None) -> Iterator[None]:
    """Let the messages about an optimizer's state say how to convert the weights without it.

    Args:
        given: the file of the optimizer's state alone; None if there is none.
    """
    flag = "give --no_optimizer_state" + (" instead of --optimizer" if given else "")
    with advising(f"{flag} to take the weights alone"):
        yield


def _contents(file: IO[bytes], path: Path, budget: Budget) -> Contents:
    """The files in an archive; none if the file is a checkpoint itself."""
    name = shown(str(path), 200)
    unpacked = archive.decompress(file, name, path.stat().st_size, budget)
    if _is_zip(unpacked):
        directory = Zip(unpacked, name)
        if pytorch.pickle_in(directory) is None:
            return archive.read_zip_archive(directory, budget)
    elif archive.is_tar(unpacked):
        return archive.read_tar_archive(unpacked, name, budget)
    contents = Contents()
    contents.found["weights"] = (unpacked, name)
    return contents


def _is_zip(file: IO[bytes]) -> bool:
    begin = file.read(4)
    file.seek(0)
    return begin in (b"PK\x03\x04", b"PK\x05\x06")


def _read_part(file: IO[bytes], name: str, budget: Budget) -> _Part:
    """The content of a checkpoint, whatever its format."""
    file.seek(0)
    if _is_zip(file):
        directory = Zip(file, name)
        pickle = pytorch.pickle_in(directory)
        if pickle is None:
            raise GlowError(f"{name} is an archive in an archive; give the checkpoint itself.")
        return _Part(*pytorch.read_zip(directory, pickle, budget), name)
    if safetensors.is_safetensors(file):
        return _Part(*safetensors.read_safetensors(file, name, budget), name)
    return _Part(*pytorch.read_legacy(file, name, budget), name)


def _read_optimizer(file: IO[bytes], name: str, budget: Budget) -> dict[str, object]:
    """The optimizer's state dict, alone in a file or inside a training checkpoint."""
    part = _read_part(file, name, budget)
    state = part.content
    if not unwrap.is_optimizer(state) and (found := unwrap.find_optimizer(state, name)):
        state = found[1]
    if not isinstance(state, dict) or not unwrap.is_optimizer(state):
        raise GlowError(f"{name} holds no optimizer's state: it lacks 'state' and 'param_groups'.")
    return _plain(state, part.reader)


def _plain(state_dict: Mapping[str, object], reader: TensorReader) -> dict[str, object]:
    """An optimizer's state dict with its moments as arrays, and tensors of one value as numbers."""

    def plain(value: object, key: str) -> object:
        if not isinstance(value, StoredTensor):
            return value
        array = reader.read(value, key)
        return array.item() if array.size == 1 and key not in _MOMENTS[1:] else array

    states, groups = state_dict["state"], state_dict["param_groups"]
    if isinstance(states, dict):
        states = {
            number: {k: plain(v, k) if k in _MOMENTS else v for k, v in state.items()}
            if isinstance(state, dict)
            else state
            for number, state in states.items()
        }
    if isinstance(groups, list):
        groups = [
            {key: plain(value, str(key)) for key, value in group.items()}
            if isinstance(group, dict)
            else group
            for group in groups
        ]
    return {"state": states, "param_groups": groups}


def _read_hparams(path: Path, contents: Contents) -> dict[str, object] | None:
    """The settings in an archive, or beside a file that is none."""
    if "hparams" in contents.found:
        file, name = contents.found["hparams"]
        return parse_settings(file.read(LARGEST + 1), name)
    beside = path.parent / HPARAMS
    if not beside.is_file() or contents.found["weights"][1] != shown(str(path), 200):
        return None
    with open_file(beside) as file:
        return parse_settings(file.read(LARGEST + 1), shown(str(beside), 200))


def _to_arrays(
    tensors: Mapping[str, StoredTensor], part: _Part, notes: list[str]
) -> dict[str, np.ndarray]:
    """Tensors as arrays of one float type, at least float32; half precision would lose digits."""
    for kind in sorted({t.dtype for t in tensors.values() if t.dtype in HALF_PRECISION}):
        notes.append(f"Its {kind} values are read as float32.")
    try:
        arrays = {key: part.reader.read(tensor, key) for key, tensor in tensors.items()}
    except GlowError as error:
        raise GlowError(f"{part.name}: {error}") from error
    floats = [key for key, array in arrays.items() if array.dtype.kind == "f"]
    if floats:
        widest = np.result_type(*(arrays[key].dtype for key in floats))
        arrays |= {key: part.reader.widen(arrays[key], widest, key) for key in floats}
    return arrays
