"""Looking at every picture of a folder once, and keeping what was found for the next start."""

import concurrent.futures
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from glow_jax.config import DataConfig
from glow_jax.data.decoding import TooLargeError, UnreadableError
from glow_jax.data.notes import note, some
from glow_jax.data.pictures import Facts, examine
from glow_jax.data.sources.found import Item
from glow_jax.errors import GlowError, shown
from glow_jax.files import write_json

_RECORD = "pictures.json"
_LONGEST_RECORD = 1 << 28


@dataclass(frozen=True)
class Checked:
    """What is known of the pictures of a folder.

    Attributes:
        unreadable: those that cannot be decoded, with the reasons.
        too_large: those beyond `picture_limit`, with the reasons.
        grey: whether all others are grey.
        moving: how many of the others have further frames.
        transparent: how many of the others have transparent parts.
        dull: how many of the others use little of the range of their type.
    """

    unreadable: dict[str, str]
    too_large: dict[str, str]
    grey: bool
    moving: int
    transparent: int
    dull: int

    @property
    def left_out(self) -> dict[str, str]:
        """The pictures that are not read, with the reasons."""
        return {**self.unreadable, **self.too_large}

    def say(self, count: int, limit: float) -> None:
        """Tell the user what is left out of `count` pictures, and what is made of the others."""
        if self.unreadable:
            note(
                f"{len(self.unreadable)} of {count} pictures cannot be read and are skipped: "
                f"{_reasoned(self.unreadable)}"
            )
        if self.too_large:
            note(
                f"{len(self.too_large)} of {count} pictures are larger than picture_limit "
                f"{limit:g} megapixels and are skipped: {_reasoned(self.too_large)}; a larger "
                "--picture_limit takes them"
            )
        if self.moving:
            note(f"{self.moving} of {count} pictures move: the first frame of each is read")
        if self.transparent:
            note(f"{self.transparent} of {count} pictures have transparent parts: shown on white")
        if self.dull:
            note(
                f"{self.dull} of {count} pictures use less than a sixteenth of the range of their "
                "type, and become as dark or flat: if that is not meant, stretch their values first"
            )


def _reasoned(problems: dict[str, str]) -> str:
    """The first names of what has a problem, and the first problem."""
    first, *others = problems
    return some([first]) + f" ({problems[first]})" + (f", {some(others)}" if others else "")


def check(
    items: Sequence[Item],
    config: DataConfig,
    size: int,
    origin: str,
    *,
    read: Sequence[Path],
    write: Path | None,
) -> Checked:
    """Look at every picture.

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
    return found


def _record(path: Path, found: Checked, origin: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"origin": origin, **asdict(found)})
    except OSError as error:
        note(f"{shown(path)} cannot be written ({error.strerror})")


def _recorded(path: Path, origin: str) -> Checked | None:
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST_RECORD:
            return None
        values = json.loads(path.read_text())
        if values.pop("origin") != origin:
            return None
        found = Checked(**values)
        texts = [text for pair in found.left_out.items() for text in pair]
        sound = all(isinstance(text, str) for text in texts) and type(found.grey) is bool
        counts = (found.moving, found.transparent, found.dull)
        return found if sound and all(type(count) is int for count in counts) else None
    # Absent or damaged: all are looked at again.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _look(items: Sequence[Item], limit: float, size: int) -> Checked:
    def look(item: Item) -> Facts | UnreadableError:
        try:
            return examine(item.source, limit=limit)
        except UnreadableError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(
            pool.map(look, items), total=len(items), desc="checking", unit="picture", leave=False
        )
        found = list(zip(items, bar, strict=True))
    facts = [one for _, one in found if isinstance(one, Facts)]
    small = [item for item, one in found if isinstance(one, Facts) and min(one.size) < size]
    if small:
        raise GlowError(
            f"{len(small)} of {len(items)} pictures are smaller than image_size {size}, the first "
            f"is {small[0].name}: take them out, or give a smaller --image_size."
        )
    large = {str(item.source): str(e) for item, e in found if isinstance(e, TooLargeError)}
    bad = {str(item.source): str(e) for item, e in found if isinstance(e, UnreadableError)}
    return Checked(
        unreadable={name: reason for name, reason in bad.items() if name not in large},
        too_large=large,
        grey=all(one.grey for one in facts),
        moving=sum(one.moving for one in facts),
        transparent=sum(one.transparent for one in facts),
        dull=sum(one.dull for one in facts),
    )
