"""A folder or a `.zip` as a tree of pictures."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from glow_jax.data.decoding import ENDINGS
from glow_jax.data.notes import note
from glow_jax.data.sources.archive import File, is_hidden, members
from glow_jax.data.sources.found import Found, Item, find_pictures
from glow_jax.errors import shown

TRAIN = ("train", "training")
"""What people call the folder of training pictures."""

TEST = ("test", "testing", "val", "valid", "validation", "dev", "eval")
"""What they call that of others, the likeliest first."""


class Tree(Protocol):
    """A folder or an archive."""

    @property
    def root(self) -> Path:
        """Its path."""
        ...

    def tops(self) -> list[str]:
        """The folders directly below the root."""
        ...

    def beside(self) -> list[str]:
        """The pictures directly below the root."""
        ...

    def below(self, top: str = "") -> Found:
        """The pictures below the root, or below one of its folders."""
        ...

    def inside(self, top: str) -> "Tree":
        """The tree below one of its folders."""
        ...


def open_tree(path: Path) -> Tree:
    """The tree of a folder or a `.zip`; of a folder around all that is there, its inside.

    Raises:
        GlowError: the archive cannot be read.
    """
    tree: Tree = _Folder(path) if path.is_dir() else _Archive(path, members(path))
    seen = {path.resolve()}
    while (top := _wrapper(tree)) and (inner := tree.inside(top)).root.resolve() not in seen:
        tree = inner
        seen.add(tree.root.resolve())
    if tree.root != path:
        note(f"{shown(path)} holds one folder, whose content is read: {shown(tree.root)}")
    return tree


def _wrapper(tree: Tree) -> str:
    """The only folder of a tree, if it is not a split and no picture lies beside it."""
    tops = tree.tops()
    is_wrapper = len(tops) == 1 and tops[0].lower() not in (*TRAIN, *TEST)
    return tops[0] if is_wrapper and not tree.beside() else ""


@dataclass(frozen=True)
class _Folder:
    root: Path
    _kept: dict[str, Found] = field(default_factory=dict)

    def tops(self) -> list[str]:
        return sorted(name for name in self._names() if (self.root / name).is_dir())

    def beside(self) -> list[str]:
        names = (name for name in self._names() if Path(name).suffix.lower() in ENDINGS)
        return sorted(name for name in names if (self.root / name).is_file())

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.root) if not is_hidden(name)]
        except OSError:  # which `below` names
            return []

    def below(self, top: str = "") -> Found:
        if top not in self._kept:
            self._kept[top] = find_pictures(self.root / top)
        return self._kept[top]

    def inside(self, top: str) -> "_Folder":
        return _Folder(self.root / top)


@dataclass(frozen=True)
class _Archive:
    root: Path
    files: list[File]

    def tops(self) -> list[str]:
        return sorted({parts[0] for parts, _, _ in self.files if len(parts) > 1})

    def beside(self) -> list[str]:
        names = (parts[0] for parts, _, _ in self.files if len(parts) == 1)
        return [name for name in names if Path(name).suffix.lower() in ENDINGS]

    def below(self, top: str = "") -> Found:
        inner = self.inside(top) if top else self
        found = Found(inner.root)
        for parts, member, checksum in inner.files:
            found.add(Item(parts, member, member.size, checksum))
        return found

    def inside(self, top: str) -> "_Archive":
        files = [
            (parts[1:], member, checksum)
            for parts, member, checksum in self.files
            if len(parts) > 1 and parts[0] == top
        ]
        return _Archive(self.root / top, files)
