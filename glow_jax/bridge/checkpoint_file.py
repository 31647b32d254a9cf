"""Checkpoint files of other programs: read in memory, never unpacked to disk, never executed."""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeGuard

import numpy as np
import torch

from glow_jax.errors import GlowError

HPARAMS = "hparams.json"

# Weights hardly compress: an archive that expands a hundredfold is an attack on memory.
_LARGEST_EXPANSION = 100
_LARGEST_HPARAMS = 2**20


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a file, under the keys of the program that wrote it.

    Attributes:
        weights: the model's state dict; floats have at least 32 bits.
        optimizer: the optimizer's state dict; None if there is none.
        hparams: the contents of `hparams.json` in the archive or beside the file; None if there is
            none.
        notes: what reading changed, one sentence each.
    """

    weights: dict[str, np.ndarray]
    optimizer: Mapping[str, object] | None
    hparams: Mapping[str, object] | None
    notes: list[str]


def read_checkpoint(path: Path, optimizer_path: Path | None = None) -> Checkpoint:
    """Read a checkpoint, in any form in which Glow weights are passed around.

    Args:
        path: a state dict or a training checkpoint, written by any version of PyTorch, or a zip
            archive of such a file.
        optimizer_path: a file that holds the optimizer's state alone.

    Raises:
        GlowError: a file is no checkpoint, is damaged, or would have to run code.
    """
    optimizer, hparams = None, None
    members = _archive_members(path)
    if members is None:
        content = _unpickle(path, str(path))
        beside = path.parent / HPARAMS
        if beside.is_file():
            hparams = _parse_hparams(beside.read_bytes(), str(beside))
    else:
        content, optimizer, hparams = _read_archive(path, members)
    weights, inside = _model_and_optimizer(content, path)
    optimizer = inside if inside is not None else optimizer
    if optimizer_path is not None:
        optimizer = _optimizer_in(_unpickle(optimizer_path, str(optimizer_path)), optimizer_path)
    notes: list[str] = []
    return Checkpoint(_to_arrays(weights, path, notes), optimizer, hparams, notes)


def _archive_members(path: Path) -> list[zipfile.ZipInfo] | None:
    """The files in a zip archive; None if it is no archive, or the kind that PyTorch writes."""
    if not path.exists():
        raise GlowError(f"There is no file {path}.")
    if not path.is_file():
        raise GlowError(f"{path} is no file; give the checkpoint itself.")
    if path.stat().st_size == 0:
        raise GlowError(f"{path} is empty: fetch it again.")
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise GlowError(f"{path} is a damaged archive: {_sentence(error)}.") from error
    if any(PurePosixPath(member.filename).name == "data.pkl" for member in members):
        return None
    return members


def _read_archive(
    path: Path, members: list[zipfile.ZipInfo]
) -> tuple[object, Mapping[str, object] | None, Mapping[str, object] | None]:
    """The unpickled weights, the optimizer's state dict and the settings of an archive."""
    found = _sort_members(path, members)
    weights = _unpickle(*_read_member(path, found["weights"]))
    optimizer = hparams = None
    if "optimizer" in found:
        optimizer = _optimizer_in(_unpickle(*_read_member(path, found["optimizer"])), path)
    if "hparams" in found:
        content, name = _read_member(path, found["hparams"])
        hparams = _parse_hparams(content.getvalue(), name)
    return weights, optimizer, hparams


def _sort_members(path: Path, members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The one file of weights, and at most one each of "optimizer" and "hparams"."""
    found: dict[str, list[zipfile.ZipInfo]] = {}
    for member in members:
        name = PurePosixPath(member.filename)
        if "__MACOSX" in name.parts:
            continue
        if name.suffix in (".pt", ".pth", ".pkl"):
            kind = "optimizer" if "optim" in name.stem else "weights"
            found.setdefault(kind, []).append(member)
        elif name.name == HPARAMS:
            found.setdefault("hparams", []).append(member)
    for kind, those in found.items():
        if len(those) > 1:
            names = ", ".join(member.filename for member in those)
            raise GlowError(f"{path} holds several files of {kind}: {names}; unpack the right one.")
    if "weights" not in found:
        raise GlowError(f"{path} is an archive without a .pt, .pth or .pkl file of weights.")
    return {kind: those[0] for kind, those in found.items()}


def _read_member(path: Path, member: zipfile.ZipInfo) -> tuple[io.BytesIO, str]:
    """A file of an archive, in memory, and its name for messages."""
    if member.file_size > _LARGEST_EXPANSION * max(member.compress_size, 1):
        raise GlowError(
            f"{member.filename} in {path} would unpack to {member.file_size} bytes, more than "
            f"{_LARGEST_EXPANSION} times its size: no weights do that."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return io.BytesIO(archive.read(member)), f"{member.filename} in {path}"
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise GlowError(
            f"{member.filename} in {path} cannot be read: {_sentence(error)}."
        ) from error


def _unpickle(source: Path | io.BytesIO, name: str) -> object:
    """Unpickle tensors and plain containers, and nothing else."""
    if isinstance(source, Path) and not source.is_file():
        raise GlowError(f"There is no file {source}.")
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise GlowError(
                f"{name} is refused: it would have to run {wanted[1]} to be read, which weights "
                "never need; nothing in it was run."
            ) from error
        raise GlowError(
            f"{name} is not a PyTorch checkpoint, or it is damaged: {_sentence(error)}."
        ) from error


def _sentence(error: BaseException) -> str:
    """The first sentence of an error, without its full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).split(". ")[0].rstrip(". ")


def _parse_hparams(content: bytes, name: str) -> dict[str, object]:
    if len(content) > _LARGEST_HPARAMS:
        raise GlowError(f"{name} has {len(content)} bytes: it is no list of settings.")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GlowError(f"{name} is not valid JSON: {_sentence(error)}.") from error
    if not isinstance(values, dict):
        raise GlowError(f"{name} holds no settings: it must be an object with named values.")
    return values


def _is_optimizer(content: object) -> TypeGuard[dict[str, object]]:
    return isinstance(content, dict) and {"state", "param_groups"} <= set(content)


def _model_and_optimizer(
    content: object, path: Path
) -> tuple[dict[str, torch.Tensor], Mapping[str, object] | None]:
    """The state dicts of the model and, if it is there, of the optimizer."""
    if _is_optimizer(content):
        raise GlowError(
            f"{path} holds an optimizer's state and no weights; give the weights as FILE and this "
            "as --optimizer."
        )
    optimizer = None
    if isinstance(content, dict):
        for model_key, optimizer_key in (("model", "optimizer"), ("graph", "optim")):
            if isinstance(content.get(model_key), dict):
                optimizer = content.get(optimizer_key)
                content = content[model_key]
                break
    if not isinstance(content, dict) or not content:
        raise GlowError(f"{path} holds no state dict, but {_describe(content)}.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise GlowError(
                f"{path} holds no state dict: its key {key!r} is {_describe(value)}, not a tensor."
            )
    if optimizer is not None and not _is_optimizer(optimizer):
        raise GlowError(f"{path} holds no optimizer's state where it should: its keys are unknown.")
    # torch.nn.DataParallel saves every key under this prefix.
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content, optimizer


def _describe(value: object) -> str:
    return "nothing" if value is None or value == {} else f"a {type(value).__name__}"


def _optimizer_in(content: object, path: Path) -> Mapping[str, object]:
    """The optimizer's state dict, alone or inside a training checkpoint."""
    if isinstance(content, dict) and not _is_optimizer(content):
        content = content.get("optimizer", content.get("optim"))
    if not _is_optimizer(content):
        raise GlowError(f"{path} holds no optimizer's state: it lacks 'state' and 'param_groups'.")
    return content


def _to_arrays(
    tensors: dict[str, torch.Tensor], path: Path, notes: list[str]
) -> dict[str, np.ndarray]:
    """Tensors as arrays of one float type, at least float32; half precision would lose digits."""
    arrays, widened = {}, set()
    for key, tensor in tensors.items():
        if tensor.dtype in (torch.float16, torch.bfloat16):
            widened.add(str(tensor.dtype).removeprefix("torch."))
            tensor = tensor.float()
        try:
            arrays[key] = tensor.detach().numpy()
        except (RuntimeError, TypeError) as error:
            raise GlowError(
                f"{path}: the tensor of key {key!r} is of a kind that weights never have "
                f"({tensor.dtype}, {tensor.layout}, on {tensor.device})."
            ) from error
    for dtype in sorted(widened):
        notes.append(f"Its {dtype} values are read as float32.")
    floats = [key for key, array in arrays.items() if array.dtype.kind == "f"]
    if floats:
        widest = np.result_type(*(arrays[key].dtype for key in floats))
        arrays |= {key: arrays[key].astype(widest, copy=False) for key in floats}
    return arrays
