"""Directions in latent space that a run keeps: `RUN/directions/NAME.npz`.

A direction belongs to the weights that made it, so each file records their digest. Those of other
weights stay in the folder and are not read.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, shown
from glow_jax.files import write_whole
from glow_jax.runs.measured import Columns, read_stored

_FOLDER = "directions"
_ABOUT = "about"
_LONGEST_NAME = 200
# A folder of a stranger may hold any number; each takes as much memory as an image.
_MOST = 1000


@dataclass(frozen=True)
class Direction:
    """A direction of a run.

    Attributes:
        name: what a user calls it.
        about: what it was made of, as plain JSON values.
        noise: noise of one image, one array (1, h, w, c) for each level, finest first.
    """

    name: str
    about: Mapping[str, object]
    noise: tuple[np.ndarray, ...]


def write_direction(folder: Path, direction: Direction, *, weights: str) -> Path:
    """Keep a direction in a run folder, in the place of an older one of its name.

    Args:
        folder: the run folder.
        direction: the direction.
        weights: the digest of the weights that it belongs to.

    Returns:
        The file.

    Raises:
        GlowError: the name is empty, too long, or of characters that cannot be printed.
    """
    name = direction.name
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise GlowError(
            f"{shown(name)!r} is no name of a direction: give 1 to {_LONGEST_NAME} letters that "
            "can be printed."
        )
    buffer = io.BytesIO()
    about = json.dumps([name, weights, dict(direction.about)])
    levels = {str(level): entry for level, entry in enumerate(direction.noise)}
    np.savez(buffer, allow_pickle=False, **{_ABOUT: np.array(about), **levels})
    path = folder / _FOLDER / f"{_file_name(name)}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)  # of a name, there may be no folder yet
    write_whole(path, buffer.getvalue())
    return path


def _file_name(name: str) -> str:
    """A name as that of a file: readable, and another one for another name."""
    letters = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name)
    return f"{letters[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def read_directions(folder: Path, config: ModelConfig, *, weights: str) -> dict[str, Direction]:
    """Read the directions of a run that belong to some weights, by their names.

    Args:
        folder: the run folder.
        config: the architecture, which tells the shapes of the levels.
        weights: the digest of the weights.

    Raises:
        GlowError: a file is damaged, or there are too many.
    """
    paths = sorted((folder / _FOLDER).glob("*.npz"))
    if len(paths) > _MOST:
        raise GlowError(
            f"{folder / _FOLDER} has {len(paths)} files, more than {_MOST}: remove some."
        )
    found = {}
    for path in paths:
        direction, of = _read(path, config)
        if of == weights:
            found[direction.name] = direction
    return dict(sorted(found.items()))


def _read(path: Path, config: ModelConfig) -> tuple[Direction, str]:
    damage = GlowError(f"{path} is damaged: remove it, and compute the direction again.")
    largest = 8 * config.dimensions + (1 << 20)
    if path.stat().st_size > largest:
        raise GlowError(f"{path} has more bytes than a direction of this model: remove it.")
    try:
        arrays: Columns = read_stored(path)
        name, weights, about = json.loads(arrays.pop(_ABOUT).item())
        noise = tuple(arrays[str(level)] for level in range(config.L))
    except GlowError:
        raise
    except Exception:  # whatever NumPy and zipfile raise for a damaged file
        raise damage from None
    shapes = [(1, *shape) for shape in config.latent_shapes]
    sound = all(
        entry.shape == shape and entry.dtype == np.float32 and np.isfinite(entry).all()
        for entry, shape in zip(noise, shapes, strict=True)
    )
    if not (sound and isinstance(name, str) and isinstance(about, dict)):
        raise damage
    return Direction(shown(name), about, noise), str(weights)
