"""Which pictures of a folder or an archive are for training, which for testing, and their classes.

FOLDER/*.png                             no classes; a tenth is held out
FOLDER/CLASS/*.png                       classes; a tenth is held out
FOLDER/train/..., FOLDER/test/...        two splits; also val, valid, validation or dev
FOLDER/train/...                         a tenth is held out
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from glow_jax.data.notes import note, some
from glow_jax.data.sources.archive import members
from glow_jax.data.sources.found import Found, Item, find_pictures
from glow_jax.errors import GlowError, shown

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation", "dev", "eval")


class _Tree(Protocol):
    """A folder or an archive."""

    @property
    def root(self) -> Path:
        """Its path."""
        ...

    def tops(self) -> list[str]:
        """The folders directly below the root."""
        ...

    def below(self, top: str = "") -> Found:
        """The pictures below the root, or below one of its folders."""
        ...


@dataclass(frozen=True)
class _Folder:
    root: Path

    def tops(self) -> list[str]:
        names = (name for name in os.listdir(self.root) if not name.startswith("."))
        return sorted(name for name in names if (self.root / name).is_dir())

    def below(self, top: str = "") -> Found:
        return find_pictures(self.root / top)


@dataclass(frozen=True)
class _Archive:
    root: Path

    def tops(self) -> list[str]:
        return sorted({parts[0] for parts, _, _ in members(self.root) if len(parts) > 1})

    def below(self, top: str = "") -> Found:
        found = Found(self.root / top if top else self.root)
        for parts, member, info in members(self.root):
            if not top or (len(parts) > 1 and parts[0] == top):
                below = parts[1:] if top else parts
                found.add(Item(below, member, info.file_size, info.CRC))
        return found


@dataclass(frozen=True)
class Division:
    """The pictures of each split.

    Attributes:
        found: of the splits `train` and, where there is one, `test`.
        class_names: in the order of the labels; none where there are no classes.
    """

    found: dict[str, Found]
    class_names: tuple[str, ...]

    def labels(self, split: str, items: list[Item]) -> np.ndarray:
        """The class numbers of pictures of a split, (N,), or (N, 0) where there are none.

        Raises:
            GlowError: some pictures are of no class of the training pictures, and others are.
        """
        names = self.class_names
        if not names or not _has_classes(items, names):
            return np.empty((len(items), 0), np.int32)
        numbers = {name: number for number, name in enumerate(names)}
        strange = sorted({item.parts[0] for item in items} - set(names))
        if strange:
            raise GlowError(
                f"{shown(self.found[split].root)} has {some(strange)}, which is no class of the "
                f"training pictures: those are {some(list(names))}."
            )
        return np.array([numbers[item.parts[0]] for item in items], np.int32)


def divide(folder: Path, *, hold_out: bool) -> Division:
    """Find the pictures of a folder or a `.zip`, and tell the splits and classes apart.

    Args:
        folder: the folder or the archive.
        hold_out: False takes all pictures for both splits where there is one only.

    Raises:
        GlowError: it cannot be told what a folder is, or there are no pictures.
    """
    tree: _Tree = _Folder(folder) if folder.is_dir() else _Archive(folder)
    tops = tree.tops()
    lower = {top.lower(): top for top in tops}
    train = next((lower[name] for name in _TRAIN if name in lower), "")
    tests = [lower[name] for name in _TEST if name in lower]
    if train:
        found = {"train": tree.below(train)}
        if tests:
            found["test"] = _best_test(tree, tests, _class_names(found["train"]))
        _check_others(tree, [train, *tests], has_test=bool(tests))
    elif tests and len(tests) == len(tops) and not tree.below().items_beside:
        if hold_out:
            raise GlowError(
                f"{shown(folder)} has {some(tests)} and no train: give the folder whose pictures "
                "are to be trained on, or name it train."
            )
        found = {"train": tree.below(tests[0])}
    else:
        found = {"train": tree.below()}
    if "test" not in found and not hold_out:
        found["test"] = found["train"]
    names = _class_names(found["train"])
    for one in dict.fromkeys(map(id, found.values())):
        next(part for part in found.values() if id(part) == one).say()
    if "test" in found and names and not _has_classes(found["test"].items, names):
        note(f"{shown(found['test'].root)} has no classes: its pictures are read without labels")
    return Division(found, names)


def _best_test(tree: _Tree, tests: list[str], names: tuple[str, ...]) -> Found:
    """The pictures to test on: the first split that has the training pictures' classes."""
    parts = {top: part for top in tests if (part := tree.below(top)).items}
    if not parts:
        return tree.below(tests[0])
    chosen = next((top for top in parts if _has_classes(parts[top].items, names)), "")
    chosen = chosen or next(iter(parts))
    for top, part in parts.items():
        if top != chosen:
            note(
                f"{shown(part.root)} ({len(part.items)} pictures) is not read: {shown(chosen)} is "
                "the test split"
            )
    return parts[chosen]


def _check_others(tree: _Tree, used: list[str], *, has_test: bool) -> None:
    """Name the pictures that lie beside the splits; refuse folders that may be classes."""
    others = [top for top in tree.tops() if top not in used and tree.below(top).items]
    if others and not has_test:
        root = shown(tree.root)
        raise GlowError(
            f"{root} has {shown(used[0])} and also {some(others)}: if {shown(used[0])} holds the "
            f"training pictures, give --dataset folder:{root}/{shown(used[0])}; if it is a class, "
            "rename it."
        )
    if others:
        note(f"{shown(tree.root)}: {some(others)} not read, as {shown(used[0])} is the split")


def _class_names(found: Found) -> tuple[str, ...]:
    names = sorted({item.parts[0] for item in found.items if len(item.parts) > 1})
    beside = found.items_beside
    if beside and names:
        note(
            f"{shown(found.root)}: no classes, because {beside} of {len(found.items)} pictures lie "
            f"beside the folders {some(names)}"
        )
    return tuple(names) if len(names) > 1 and not beside else ()


def _has_classes(items: list[Item], names: tuple[str, ...]) -> bool:
    """Whether any picture lies in a folder of the name of a class."""
    return any(len(item.parts) > 1 and item.parts[0] in names for item in items)
