"""Paths as they may be published: they may name the user of the machine."""

from pathlib import PurePath

_FOLDER = "folder:"


def told(path: str) -> str:
    """A path as strangers may read it.

    Of one that begins at the root or at a home, or leads up, the last part stays. Others say where
    something lies below the folder that commands are given in.
    """
    leads_out = path.startswith(("/", "~")) or ".." in PurePath(path).parts
    return PurePath(path).name if leads_out else path


def told_dataset(dataset: str) -> str:
    """The name of a data set, or its file or folder as `told`."""
    kind, path = kind_and_path(dataset)
    return f"{kind}{told(path)}"


def kind_and_path(dataset: str) -> tuple[str, str]:
    """The kind that a data set's name begins with, `folder:` or nothing, and the rest."""
    kind = _FOLDER if dataset.startswith(_FOLDER) else ""
    return kind, dataset.removeprefix(kind)
