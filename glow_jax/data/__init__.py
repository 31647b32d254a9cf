"""Data sets by name. Each source of images has a file in `sources`."""

import difflib
from collections.abc import Callable

from glow_jax.catalogue import ALIASES, CATALOGUE, find
from glow_jax.config import DataConfig
from glow_jax.data.batching import Batch
from glow_jax.data.dataset import Dataset, InMemory, Pictures, Readable
from glow_jax.data.sources.arrays import from_arrays, load_npz
from glow_jax.data.sources.digits import load_digits
from glow_jax.data.sources.folder import load_folder
from glow_jax.data.sources.tfds import known_names, load_tfds
from glow_jax.data.streaming import Streamed
from glow_jax.errors import GlowError

Loader = Callable[[DataConfig], Dataset]

_REGISTERED: dict[str, Loader] = {"digits": load_digits}


def register(name: str, loader: Loader) -> None:
    """Give a data set of your own a name; call it before `load_dataset` or `train.main`.

    Args:
        name: the value of `--dataset`; it hides a published data set of that name.
        loader: takes the `DataConfig` of a run and returns the data set. `from_arrays` makes one of
            arrays; `Dataset` and `Streamed` make one of pictures that are too large for memory.
    """
    _REGISTERED[name] = loader


def load_dataset(config: DataConfig) -> Dataset:
    """Load the data set that `config.dataset` names, and prepare it first where it is missing.

    Args:
        config: `dataset` is a registered or published name, `folder:PATH`, or an `.npz` file.

    Raises:
        GlowError: there is none of that name, or something it needs is missing; the message says
            what to do.
    """
    name = config.dataset
    if name in _REGISTERED:
        return _REGISTERED[name](config)
    if name.startswith("folder:"):
        return load_folder(config)
    if name.endswith(".npz"):
        return load_npz(config)
    if find(name) is None and name.partition("/")[0] not in (others := known_names()):
        # The catalogue's names come first, because they are more likely to be meant.
        listed = list(dict.fromkeys([*_REGISTERED, *CATALOGUE, *ALIASES]))
        near = difflib.get_close_matches(name, listed, n=1)
        near = near or difflib.get_close_matches(name, others, n=1)
        hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(listed)}"
        raise GlowError(
            f"Data set {name!r} is not available; {hint}. To train without any download: "
            "python train.py --preset digits."
        )
    return load_tfds(config)


__all__ = [
    "Batch",
    "Dataset",
    "InMemory",
    "Pictures",
    "Readable",
    "Streamed",
    "from_arrays",
    "load_dataset",
    "register",
]
