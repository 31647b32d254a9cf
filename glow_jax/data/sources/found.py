"""Which pictures lie in a folder: each real folder once, and only real files."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from glow_jax.data.decoding import ENDINGS
from glow_jax.data.notes import note, some
from glow_jax.data.sources.archive import Member, is_hidden
from glow_jax.errors import GlowError, shown

# Files that systems put among pictures, and that nobody means.
_NOT_MEANT = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Item:
    """A picture that was found.

    Attributes:
        parts: the names of the folders below the root, and its own.
        source: its file, or the member of an archive.
        size: bytes.
        stamp: changes where the content does.
    """

    parts: tuple[str, ...]
    source: Path | Member
    size: int
    stamp: int

    @property
    def name(self) -> str:
        """What messages call it."""
        return shown(str(self.source))


@dataclass
class Found:
    """What was found below a root.

    Attributes:
        root: the folder or the archive.
        items: its pictures, sorted by their parts.
        others: how many files of each other ending there are.
        problems: links and folders that are not followed, each with the reason.
    """

    root: Path
    items: list[Item] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def items_beside(self) -> int:
        """How many pictures lie directly in the root."""
        return sum(len(item.parts) == 1 for item in self.items)

    def add(self, item: Item) -> None:
        """Take a file as a picture, or count it by its ending."""
        name = item.parts[-1]
        ending = Path(name).suffix.lower()
        if ending in ENDINGS:
            self.items.append(item)
        elif name.lower() not in _NOT_MEANT:
            self.others[shown(ending) or "no ending"] += 1

    def say(self) -> None:
        """Tell the user what is left out."""
        root = shown(self.root)
        if self.others:
            plural = "s" if self.others.total() > 1 else ""
            counted = self._counted()
            note(f"{root}: {self.others.total()} file{plural} not read as pictures: {counted}")
        if self.problems:
            note(f"{root}: {len(self.problems)} left out: {some(self.problems)}")

    def refuse_others(self) -> None:
        """Raise `GlowError` where there is something, but no picture."""
        if self.items or not (self.others or self.problems):
            return
        what = f"{self._counted()} not read" if self.others else f"{some(self.problems)} left out"
        raise GlowError(
            f"{shown(self.root)} has no pictures, but {what}: save them as .png or .jpg, or take "
            "the folder away."
        )

    def _counted(self) -> str:
        """The other files by their endings, those of most files first."""
        named = ", ".join(f"{count} of {name}" for name, count in self.others.most_common(8))
        return named + (", ..." if len(self.others) > 8 else "")


def find_pictures(root: Path) -> Found:
    """All pictures below a folder, without hidden files and folders.

    Links are followed, each real folder is read once, and its real place goes before a link to it.
    Named pipes and devices are never opened.
    """
    found, seen = Found(root), set()
    open_folders: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    links: list[tuple[Path, tuple[str, ...]]] = []
    while open_folders or links:
        is_link = not open_folders
        place, parts = links.pop(0) if is_link else open_folders.pop()
        try:
            status = place.stat()
            if (status.st_dev, status.st_ino) in seen:
                found.problems.append(f"{place} (leads to a folder that is read already)")
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            found.problems.append(f"{place} ({error.strerror})")
            continue
        for entry in listed:
            if is_hidden(entry.name):
                continue
            below = (Path(entry.path), (*parts, entry.name))
            if entry.is_dir(follow_symlinks=False):
                open_folders.append(below)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # no error for a circle
                links.append(below)
            else:
                _add_file(found, *below)
    found.items.sort(key=lambda item: [os.fsencode(part) for part in item.parts])
    return found


def _add_file(found: Found, path: Path, parts: tuple[str, ...]) -> None:
    try:
        status = path.stat()
    except OSError as error:  # a link that leads nowhere, or round in a circle
        found.problems.append(f"{path} ({error.strerror})")
        return
    if not stat.S_ISREG(status.st_mode):
        found.problems.append(f"{path} (no file, but a pipe or a device)")
        return
    found.add(Item(parts, path, status.st_size, status.st_mtime_ns))
