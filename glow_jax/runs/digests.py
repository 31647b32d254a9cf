"""The SHA-256 of every file of a checkpoint."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from glow_jax.errors import GlowError

DIGESTS = "sha256.json"


def digests_of(directory: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The digest of every file of a step, by path; files in `known` are not read again."""
    digests = dict(known)
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        if name not in {DIGESTS, *known}:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def read_digests(directory: Path) -> dict[str, str]:
    """The digests that were written when a step was saved.

    Raises:
        GlowError: their file is damaged.
    """
    try:
        return json.loads((directory / DIGESTS).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise GlowError(f"Checkpoint file {directory / DIGESTS} is damaged.") from None


def first_damaged(directory: Path) -> str | None:
    """What is wrong with the first file that differs from what was saved; None if all is well."""
    expected, found = read_digests(directory), digests_of(directory)
    for name in sorted(expected):
        if found.get(name) != expected[name]:
            fault = "is missing" if name not in found else "is damaged: its SHA-256 differs"
            return f"Checkpoint file {directory / name} {fault}"
    return None
