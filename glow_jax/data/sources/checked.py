"""Looking at every picture of a folder once, and keeping what was found for the next start."""

import concurrent.futures
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from glow_jax.config import DataConfig
from glow_jax.data.notes import note, some
from glow_jax.data.pictures import TooLargeError, UnreadableError, examine
from glow_jax.data.sources.found import Item
from glow_jax.errors import GlowError, shown
from glow_jax.files import write_json

_RECORD = "pictures.json"
_LONGEST_RECORD = 1 << 28
_BYTES_OF_A_PIXEL = 16


@dataclass(frozen=True)
class Checked:
    """What is known of the pictures of a folder.

    Attributes:
        unreadable: those that cannot be decoded.
        too_large: those beyond `picture_limit`.
        grey: whether all others are grey.
        moving: how many of the others have further frames.
        transparent: how many of the others have transparent parts.
    """

    unreadable: list[str]
    too_large: list[str]
    grey: bool
    moving: int
    transparent: int


def content(item: Item, limit: float) -> tuple[Path | bytes, str]:
    """What to decode, and the ending where that is no file.

    Raises:
        UnreadableError: it is in an archive, and damaged there.
    """
    if isinstance(item.source, Path):
        return item.source, ""
    return item.source.read(int(limit * 1e6 * _BYTES_OF_A_PIXEL)), item.source.ending


def check(
    items: Sequence[Item],
    config: DataConfig,
    size: int,
    origin: str,
    *,
    read: Sequence[Path],
    write: Path | None,
) -> Checked:
    """Look at every picture, and tell the user what is left out and what is made of the others.

    Args:
        items: the pictures.
        config: `picture_limit` is used.
        size: side of the images; no picture may be smaller.
        origin: changes where a picture does.
        read: folders where an earlier start may have kept what it found.
        write: the folder to keep it in; None for nowhere.

    Raises:
        GlowError: some are smaller than `size`.
    """
    found = next((one for place in read if (one := _recorded(place / _RECORD, origin))), None)
    if found is None:
        found = _look(items, config.picture_limit, size)
        if write is not None:
            _record(write / _RECORD, found, origin)
    _say(found, len(items), config.picture_limit)
    return found


def _say(found: Checked, count: int, limit: float) -> None:
    if found.unreadable:
        warnings.warn(
            f"{len(found.unreadable)} of {count} pictures cannot be read and are skipped: "
            f"{some(found.unreadable)}",
            stacklevel=2,
        )
    if found.too_large:
        warnings.warn(
            f"{len(found.too_large)} of {count} pictures are larger than picture_limit {limit:g} "
            f"megapixels and are skipped: {some(found.too_large)}; a larger --picture_limit takes "
            "them",
            stacklevel=2,
        )
    if found.moving:
        note(f"{found.moving} of {count} pictures move: the first frame of each is read")
    if found.transparent:
        note(f"{found.transparent} of {count} pictures have transparent parts: shown on white")


def _record(path: Path, found: Checked, origin: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"origin": origin, **asdict(found)})
    except OSError as error:
        warnings.warn(f"{shown(path)} cannot be written ({error.strerror}).", stacklevel=2)


def _recorded(path: Path, origin: str) -> Checked | None:
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST_RECORD:
            return None
        values = json.loads(path.read_text())
        if values.pop("origin") != origin:
            return None
        found = Checked(**values)
        names = [*found.unreadable, *found.too_large]
        sound = all(isinstance(name, str) for name in names) and type(found.grey) is bool
        return found if sound and type(found.moving) is type(found.transparent) is int else None
    # Absent or damaged: all are looked at again.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _look(items: Sequence[Item], limit: float, size: int) -> Checked:
    def look(item: Item) -> tuple[str, bool, bool, bool]:
        try:
            source, ending = content(item, limit)
            facts = examine(source, limit=limit, ending=ending)
        except TooLargeError:
            return "large", True, False, False
        except UnreadableError:
            return "unreadable", True, False, False
        problem = "small" if min(facts.size) < size else ""
        return problem, facts.grey, facts.moving, facts.transparent

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(
            pool.map(look, items), total=len(items), desc="checking", unit="picture", leave=False
        )
        problems, grey, moving, transparent = zip(*bar, strict=True)
    named = list(zip(items, problems, strict=True))
    small = [item for item, problem in named if problem == "small"]
    if small:
        raise GlowError(
            f"{len(small)} of {len(items)} pictures are smaller than image_size {size}, the first "
            f"is {small[0].name}: take them out, or give a smaller --image_size."
        )
    return Checked(
        unreadable=[str(item.source) for item, problem in named if problem == "unreadable"],
        too_large=[str(item.source) for item, problem in named if problem == "large"],
        grey=all(grey),
        moving=sum(moving),
        transparent=sum(transparent),
    )
