"""Data sets by name. Each source of images has a file in `sources`."""

from collections.abc import Callable

from glow_jax.catalogue import find
from glow_jax.config import DataConfig
from glow_jax.data.batching import Batch
from glow_jax.data.dataset import Dataset, InMemory, Pictures, Readable
from glow_jax.data.hints import refuse_unknown
from glow_jax.data.places import Places
from glow_jax.data.sources.array_files import is_array_file, load_array_file
from glow_jax.data.sources.arrays import from_arrays
from glow_jax.data.sources.digits import load_digits
from glow_jax.data.sources.folder import load_folder
from glow_jax.data.sources.tfds import load_tfds
from glow_jax.data.streaming import Streamed

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


def load_dataset(config: DataConfig, *, named_by_run: bool = False) -> Dataset:
    """Load the data set that `config.dataset` names, and prepare it first where it is missing.

    Args:
        config: `dataset` is a registered or published name, `folder:PATH`, a `.zip` of pictures,
            or an `.npz` or `.npy` file.
        named_by_run: whether `config.dataroot` comes from a run folder, which a stranger may have
            written. It is only read then: what is missing is asked for, and decoded images go to
            the user's own cache.

    Raises:
        GlowError: there is none of that name, or something it needs is missing; the message says
            what to do.
    """
    name, places = config.dataset, Places(config.dataroot, read_only=named_by_run)
    if name in _REGISTERED:
        return _REGISTERED[name](config)
    if is_array_file(name):
        return load_array_file(config)
    if name.startswith("folder:") or name.lower().endswith(".zip"):
        return load_folder(config, places=places)
    if find(name) is None:
        refuse_unknown(name, list(_REGISTERED))
    return load_tfds(config, places)


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
