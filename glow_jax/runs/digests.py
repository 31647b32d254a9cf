"""The SHA-256 of every file of a checkpoint, and what the checkpoint was made of."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from glow_jax.config import Config
from glow_jax.config.changes import what_a_run_keeps
from glow_jax.errors import GlowError, shown
from glow_jax.files import write_json
from glow_jax.runs.inside import parse_json, read_inside, read_json

DIGESTS = "sha256.json"
VALIDATION = "validation.json"
ORIGIN = "origin.json"

_LARGEST_MIB = 64
# Orbax reads these whole. They have half a kilobyte for each array.
_ORBAX_JSON = ("_CHECKPOINT_METADATA", "_METADATA", "_sharding", "metadata")
_ORBAX_JSON_FOLDER = "array_metadatas"
_LARGEST_ORBAX_MIB = 16
_DIGEST = re.compile("[0-9a-f]{64}")


def digests_of(directory: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The digest of every file of a step, by path; files in `known` are not read again."""
    digests = dict(known)
    for path in _files(directory):
        name = path.relative_to(directory).as_posix()
        if name not in known:
            digests[name] = _digest(path)
    return digests


def _files(directory: Path) -> list[Path]:
    """The files of a step, without that of the digests."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return sorted(path for path in found if path != directory / DIGESTS)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_digests(directory: Path) -> dict[str, str]:
    """The digests that were written when a step was saved.

    Raises:
        GlowError: their file is damaged.
    """
    path = directory / DIGESTS
    try:
        values = read_json(path, _LARGEST_MIB)
    except GlowError:
        values = None
    if not isinstance(values, dict) or not values or not all(map(_is_digest, values.values())):
        raise GlowError(f"Checkpoint file {path} is damaged: it is no list of digests.")
    return values


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def first_damaged(directory: Path, largest: int) -> str | None:
    """What is wrong with the first file that differs from what was saved; None if all is well.

    Args:
        directory: the folder of a step.
        largest: the bytes that its files may have together. Files that are not listed are neither
            counted nor read.
    """
    expected = read_digests(directory)
    sizes = {
        path.relative_to(directory).as_posix(): path.stat().st_size for path in _files(directory)
    }
    total = sum(size for name, size in sizes.items() if name in expected)
    if total > largest:
        return (
            f"Checkpoint folder {directory} has {total / 1e9:.3g} GB of files, and no step of its "
            f"model needs more than {largest / 1e9:.3g} GB"
        )
    for name in sorted(expected):
        if name not in sizes:
            return f"Checkpoint file {directory / name} is missing"
        if _digest(directory / name) != expected[name]:
            return f"Checkpoint file {directory / name} is damaged: its SHA-256 differs"
    unlisted = [name for name in sorted(sizes) if name not in expected and not _may_be_new(name)]
    if unlisted:
        return f"Checkpoint file {directory / DIGESTS} is damaged: it has no {unlisted[0]}"
    return next(filter(None, (_fault_of_json(directory / name) for name in sorted(expected))), None)


def _fault_of_json(path: Path) -> str | None:
    """Why Orbax should not read one of its JSON files; None if it may, or it is no such file."""
    if path.name in _ORBAX_JSON or path.parent.name == _ORBAX_JSON_FOLDER:
        try:
            read_json(path, _LARGEST_ORBAX_MIB)
        except GlowError as error:
            return f"Checkpoint file {str(error).removesuffix('.')}"
    return None


def _may_be_new(name: str) -> bool:
    """Whether a file may have come after the digests: a score, or what systems put anywhere."""
    return name == VALIDATION or name.rpartition("/")[2].startswith(".")


def read_score(directory: Path) -> float | None:
    """A step's bits/dim on the validation split, checked; None if it has none.

    Raises:
        GlowError: a file that decides it is damaged.
    """
    digests, path = read_digests(directory), directory / VALIDATION
    lost = next((name for name in sorted(digests) if not (directory / name).is_file()), None)
    if lost is not None:
        raise GlowError(f"Checkpoint file {directory / lost} is missing.")
    if VALIDATION not in digests:
        if path.exists():
            raise GlowError(
                f"Checkpoint file {directory / DIGESTS} has no {VALIDATION}, which is there: it is "
                "damaged, or was not written to the end; --resume measures the score again."
            )
        return None
    damage = GlowError(f"Checkpoint file {path} is damaged.")
    content = read_inside(path, 1)
    if hashlib.sha256(content).hexdigest() != digests[VALIDATION]:
        raise damage
    values = parse_json(path, content)
    score = values.get("bits_per_dim") if isinstance(values, dict) else None
    if isinstance(score, bool) or not isinstance(score, int | float) or abs(score) > 1e30:
        raise damage
    return float(score)


def write_origin(directory: Path, step: int, config: Config) -> None:
    """Note in a step's folder which step it is, and what of the configuration it depends on."""
    write_json(directory / ORIGIN, {"step": step, "config": what_a_run_keeps(config)})


def check_number(directory: Path) -> None:
    """Refuse a step in a folder of another number. Older steps do not say theirs.

    Raises:
        GlowError: the folder was renamed or put in the place of another.
    """
    origin = _read_origin(directory)
    if origin is not None and str(origin.get("step")) != directory.name:
        raise GlowError(
            f"Checkpoint folder {directory} holds step {shown(origin.get('step'), 40)}: it was "
            "renamed or put in the place of another; give it the name of its step."
        )


def check_origin(directory: Path, config: Config, hparams: Path) -> None:
    """Refuse a configuration other than the one that a step was saved with.

    Raises:
        GlowError: a value differs that a run keeps for all its life.
    """
    origin = _read_origin(directory)
    if origin is None:
        return
    kept = origin.get("config")
    for section, values in what_a_run_keeps(config).items():
        saved = kept.get(section) if isinstance(kept, dict) else None
        for name, value in values.items():
            if isinstance(saved, dict) and name in saved and saved[name] != value:
                raise GlowError(
                    f"{hparams} has {section}.{name} = {value!r}, but step {directory.name} was "
                    f"saved with '{shown(saved[name], 80)}': the file was changed or damaged; put "
                    "the value back."
                )


def _read_origin(directory: Path) -> dict[str, object] | None:
    if not (directory / ORIGIN).exists():
        return None
    origin = read_json(directory / ORIGIN)
    if not isinstance(origin, dict):
        raise GlowError(f"Checkpoint file {directory / ORIGIN} is damaged.")
    return origin
