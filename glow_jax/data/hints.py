"""What to do about a name that is no data set."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from glow_jax.catalogue import ALIASES, CATALOGUE
from glow_jax.commands import command
from glow_jax.data.decoding import ENDINGS
from glow_jax.data.sources.tfds import known_names
from glow_jax.errors import GlowError, shown
from glow_jax.files import expanded

_PACKED = (".tar", ".tgz", ".gz", ".xz", ".bz2", ".7z", ".rar", ".zst")


def refuse_unknown(name: str, registered: Sequence[str]) -> None:
    """Raise `GlowError` with a hint unless tensorflow-datasets has a data set of a name.

    Args:
        name: the value of `--dataset`.
        registered: names that the user has given to data sets.
    """
    path = expanded(name, "dataset")
    if name and path.exists():
        _refuse_path(name, path)
    base, _, configuration = name.partition("/")
    others = known_names()
    plain = configuration.replace("_", "").replace("-", "").replace(".", "").isalnum()
    if base in others and (plain or not configuration):
        return
    if name.startswith((".", "/", "~")) or "/" in name:
        raise GlowError(
            f"There is no folder or file {shown(path)}: give --dataset folder:PATH with pictures, "
            "or the path of an .npz file."
        )
    # The catalogue's names come first, because they are more likely to be meant.
    listed = list(dict.fromkeys([*registered, *CATALOGUE, *ALIASES]))
    near = difflib.get_close_matches(name.lower(), listed, n=1)
    near = near or difflib.get_close_matches(name.lower(), others, n=1)
    hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(listed)}"
    raise GlowError(
        f"Data set {shown(name)!r} is not available; {hint}. To train without any download: "
        f"{command('train')} --preset digits."
    )


def _refuse_path(name: str, path: Path) -> NoReturn:
    """Say how a folder or a file is given as a data set."""
    what, ending = shown(name), path.suffix.lower()
    if path.is_dir():
        if (path / "hparams.json").is_file():
            raise GlowError(f"{what} is a run folder, and no data set: give --dataset its images.")
        raise GlowError(f"{what} is a folder: give --dataset folder:{what}")
    if ending in ENDINGS:
        raise GlowError(
            f"{what} is one picture: give the folder of all pictures, --dataset folder:PATH."
        )
    if ending in _PACKED:
        raise GlowError(f"{what} is packed: unpack it, and give --dataset folder:PATH.")
    raise GlowError(
        f"{what} is a file of a kind that is not read: save its images with "
        "np.savez('images.npz', images=images, labels=labels) and give --dataset images.npz."
    )
