"""Which pictures of a folder or an archive are for training, which for testing, and their classes.

FOLDER/*.png                             no classes; a tenth is held out
FOLDER/CLASS/*.png                       classes; a tenth is held out
FOLDER/train/..., FOLDER/test/...        two splits; also val, valid, validation or dev
FOLDER/train/...                         a tenth is held out

A folder around all of that is left out. What else may be meant for testing is refused, because it
would be trained on.
"""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from glow_jax.data.notes import note, some
from glow_jax.data.sources.found import Found, Item
from glow_jax.data.sources.trees import TEST, TRAIN, Tree, open_tree
from glow_jax.errors import GlowError, shown


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
    tree = open_tree(folder)
    lower = {top.lower(): top for top in tree.tops()}
    train = next((lower[name] for name in TRAIN if name in lower), "")
    tests = [lower[name] for name in TEST if name in lower and _has_pictures(tree, lower[name])]
    if train:
        found = {"train": tree.below(train)}
        if tests:
            found["test"] = _best_test(tree, tests, _class_names(found["train"]))
        _check_others(tree, [train, *tests], has_test=bool(tests))
    elif tests:
        _check_tests_alone(tree, tests, hold_out=hold_out)
        found = {"train": tree.below(tests[0])}
    else:
        found = {"train": tree.below()}
    _check_nested(tree, found["train"])
    if "test" not in found and not hold_out:
        found["test"] = found["train"]
    names = _class_names(found["train"])
    for one in dict.fromkeys(map(id, found.values())):
        next(part for part in found.values() if id(part) == one).say()
    if "test" in found and names:
        _check_case(found["test"], names)
    if "test" in found and names and not _has_classes(found["test"].items, names):
        note(f"{shown(found['test'].root)} has no classes: its pictures are read without labels")
    return Division(found, names)


def _has_pictures(tree: Tree, test: str) -> bool:
    """Whether a test split has pictures. An empty one is as good as none, and said.

    Raises:
        GlowError: it has other files only, so that something else is meant.
    """
    part = tree.below(test)
    if part.items:
        return True
    part.refuse_others()
    note(f"{shown(part.root)} is empty, and as good as none")
    return False


def _best_test(tree: Tree, tests: list[str], names: tuple[str, ...]) -> Found:
    """The pictures to test on: the first split that has the training pictures' classes."""
    parts = {top: tree.below(top) for top in tests}
    chosen = next((top for top in parts if _has_classes(parts[top].items, names)), tests[0])
    for top, part in parts.items():
        if top != chosen:
            note(
                f"{shown(part.root)} ({len(part.items)} pictures) is not read: {shown(chosen)} is "
                "the test split"
            )
    return parts[chosen]


def _others(tree: Tree, used: list[str]) -> list[str]:
    """The folders with pictures beside the splits, and how many pictures lie there."""
    others = [top for top in tree.tops() if top not in used and tree.below(top).items]
    beside = len(tree.beside())
    return [f"{beside} picture{'s' if beside > 1 else ''}", *others] if beside else others


def _check_others(tree: Tree, used: list[str], *, has_test: bool) -> None:
    """Name the pictures that lie beside the splits; refuse folders that may be classes."""
    others = _others(tree, used)
    if others and not has_test:
        root = shown(tree.root)
        raise GlowError(
            f"{root} has {shown(used[0])} and also {some(others)}: if {shown(used[0])} holds the "
            f"training pictures, give --dataset folder:{root}/{shown(used[0])}; if it is a class, "
            "rename it."
        )
    if others:
        note(f"{shown(tree.root)}: {some(others)} not read, as {shown(used[0])} is the split")


def _check_tests_alone(tree: Tree, tests: list[str], *, hold_out: bool) -> None:
    """Refuse test pictures where no folder is called train."""
    others, root = _others(tree, tests), shown(tree.root)
    if others:
        raise GlowError(
            f"{root} has {some(tests)} and also {some(others)}: move what is to be trained on into "
            f"{root}/{TRAIN[0]}, or rename {shown(tests[0])} if it is a class."
        )
    if hold_out:
        raise GlowError(
            f"{root} has {some(tests)} and no train: give the folder whose pictures are to be "
            "trained on, or name it train."
        )


def _check_nested(tree: Tree, train: Found) -> None:
    """Refuse test pictures inside a class, or further down, where they would be trained on."""
    for item in train.items:
        for depth, name in enumerate(item.parts[:-1]):
            if name.lower() in TEST:
                _refuse_nested(tree, train, item.parts[: depth + 1])


def _refuse_nested(tree: Tree, train: Found, parts: tuple[str, ...]) -> NoReturn:
    root, rest = shown(tree.root), shown("/".join(parts[:-1]))
    raise GlowError(
        f"{shown(train.root / '/'.join(parts))} lies among the training pictures: put the test "
        f"pictures into {'/'.join(filter(None, (root, TEST[0], rest)))} and the others into "
        f"{'/'.join(filter(None, (root, TRAIN[0], rest)))}, or rename it if it is no test split."
    )


def _check_case(test: Found, names: tuple[str, ...]) -> None:
    """Refuse names of classes that differ from the training pictures' by how they are written."""
    known = {_plain(name): name for name in names}
    for name in sorted({item.parts[0] for item in test.items if len(item.parts) > 1}):
        if name not in names and _plain(name) in known:
            raise GlowError(
                f"{shown(test.root)} has {shown(name)}, and the training pictures have "
                f"{shown(known[_plain(name)])}: give a class one name."
            )


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


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
