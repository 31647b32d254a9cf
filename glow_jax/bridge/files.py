"""Checkpoint files from elsewhere: read in memory, never unpacked, never executed."""

import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from glow_jax.errors import GlowError

HPARAMS = "hparams.json"

# Weights hardly compress; an archive that promises a hundredfold is an attack on memory.
_LARGEST_EXPANSION = 100
_LARGEST_HPARAMS = 2**20


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, still under the keys of the code that wrote it.

    Attributes:
        weights: the model's state dict; floats of at least 32 bits.
        optimizer: the optimizer's state dict, if there is one.
        hparams: the contents of a `hparams.json` in the archive or beside the file, if there is
            one.
        notes: what was changed in reading, a sentence each.
    """

    weights: dict[str, np.ndarray]
    optimizer: dict[str, Any] | None
    hparams: dict[str, Any] | None
    notes: list[str]


def read(path: Path, optimizer_path: Path | None = None) -> Checkpoint:
    """Read a checkpoint, in any of the forms in which Glow weights are passed around.

    Args:
        path: a state dict or a training checkpoint, by any version of PyTorch, or a zip archive of
            such a file.
        optimizer_path: a file of the optimizer's state alone.

    Raises:
        GlowError: a file is not a checkpoint, is damaged, or would have to be executed.
    """
    optimizer, hparams = None, None
    members = _archive_members(path)
    if members is None:
        content = _load(path, str(path))
        beside = path.parent / HPARAMS
        if beside.is_file():
            hparams = _parse_hparams(beside.read_bytes(), str(beside))
    else:
        content, optimizer, hparams = _read_archive(path, members)
    weights, inside = _take_apart(content, path)
    optimizer = inside if inside is not None else optimizer
    if optimizer_path is not None:
        optimizer = _optimizer_of(_load(optimizer_path, str(optimizer_path)), optimizer_path)
    notes: list[str] = []
    return Checkpoint(_to_arrays(weights, path, notes), optimizer, hparams, notes)


def _archive_members(path: Path) -> list[zipfile.ZipInfo] | None:
    """The files in a zip archive; None if it is no archive, or PyTorch's own kind."""
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
) -> tuple[Any, dict[str, Any] | None, dict[str, Any] | None]:
    """The weights, the optimizer's state and `hparams.json` out of an archive."""
    found: dict[str, list[zipfile.ZipInfo]] = {"weights": [], "optimizer": [], "hparams": []}
    for member in members:
        name = PurePosixPath(member.filename)
        if "__MACOSX" in name.parts:
            continue
        if name.suffix in (".pt", ".pth", ".pkl"):
            found["optimizer" if "optim" in name.stem else "weights"].append(member)
        elif name.name == HPARAMS:
            found["hparams"].append(member)
    for kind, those in found.items():
        if len(those) > 1:
            names = ", ".join(member.filename for member in those)
            raise GlowError(f"{path} holds several files of {kind}: {names}; unpack the right one.")
    if not found["weights"]:
        raise GlowError(f"{path} is an archive without a .pt, .pth or .pkl file of weights.")

    def content(kind: str) -> tuple[bytes, str] | None:
        if not found[kind]:
            return None
        (member,) = found[kind]
        if member.file_size > _LARGEST_EXPANSION * max(member.compress_size, 1):
            raise GlowError(
                f"{member.filename} in {path} would unpack to {member.file_size} bytes, more than "
                f"{_LARGEST_EXPANSION} times its size: no weights do that."
            )
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.read(member), f"{member.filename} in {path}"
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
            raise GlowError(
                f"{member.filename} in {path} cannot be read: {_sentence(error)}."
            ) from error

    weights = content("weights")
    assert weights is not None, "checked above"
    optimizer, hparams = content("optimizer"), content("hparams")
    return (
        _load(io.BytesIO(weights[0]), weights[1]),
        None
        if optimizer is None
        else _optimizer_of(_load(io.BytesIO(optimizer[0]), optimizer[1]), path),
        None if hparams is None else _parse_hparams(*hparams),
    )


def _load(source: Path | io.BytesIO, name: str) -> Any:
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
    """The gist of an error, on one line and without a full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).split(". ")[0].rstrip(". ")


def _parse_hparams(content: bytes, name: str) -> dict[str, Any]:
    if len(content) > _LARGEST_HPARAMS:
        raise GlowError(f"{name} has {len(content)} bytes: it is no list of settings.")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise GlowError(f"{name} is not valid JSON: {_sentence(error)}.") from error
    if not isinstance(values, dict):
        raise GlowError(f"{name} holds no settings: it must be an object with named values.")
    return values


def _is_optimizer(content: Any) -> bool:
    return isinstance(content, dict) and {"state", "param_groups"} <= set(content)


def _take_apart(content: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The model's and the optimizer's state dicts of a checkpoint."""
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
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content, optimizer


def _describe(value: Any) -> str:
    return "nothing" if value is None or value == {} else f"a {type(value).__name__}"


def _optimizer_of(content: Any, path: Path) -> dict[str, Any]:
    if isinstance(content, dict) and not _is_optimizer(content):
        content = content.get("optimizer", content.get("optim"))
    if not _is_optimizer(content):
        raise GlowError(f"{path} holds no optimizer's state: it lacks 'state' and 'param_groups'.")
    return content


def _to_arrays(
    tensors: dict[str, torch.Tensor], path: Path, notes: list[str]
) -> dict[str, np.ndarray]:
    """Tensors as arrays; half precision, which the flow cannot do without loss, as float32."""
    arrays, widened = {}, set()
    for key, tensor in tensors.items():
        if tensor.dtype in (torch.float16, torch.bfloat16):
            widened.add(str(tensor.dtype).removeprefix("torch."))
            tensor = tensor.float()
        try:
            arrays[key] = tensor.detach().numpy()
        except (RuntimeError, TypeError) as error:
            raise GlowError(
                f"{path}: the tensor of key {key!r} is of a kind that no weights are "
                f"({tensor.dtype}, {tensor.layout}, on {tensor.device})."
            ) from error
    for dtype in sorted(widened):
        notes.append(f"Its {dtype} values are read as float32.")
    floats = [key for key, array in arrays.items() if array.dtype.kind == "f"]
    if floats:
        widest = np.result_type(*(arrays[key].dtype for key in floats))
        arrays |= {key: arrays[key].astype(widest, copy=False) for key in floats}
    return arrays
