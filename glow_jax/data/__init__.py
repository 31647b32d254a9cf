"""Data sets by name: one protocol, one file a source."""

import difflib
from collections.abc import Callable

from glow_jax.config import DataConfig
from glow_jax.data.dataset import Batch, Dataset, Split
from glow_jax.data.digits import load_digits
from glow_jax.errors import GlowError

_LOADERS: dict[str, Callable[[DataConfig], Dataset]] = {"digits": load_digits}


def load_dataset(config: DataConfig) -> Dataset:
    """Load the data set that `config.dataset` names.

    Raises:
        GlowError: there is none of that name.
    """
    if config.dataset not in _LOADERS:
        near = difflib.get_close_matches(config.dataset, _LOADERS, n=1)
        hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(_LOADERS)}"
        raise GlowError(
            f"Data set {config.dataset!r} is not available; {hint}. To train without any download: "
            "python train.py --preset digits."
        )
    return _LOADERS[config.dataset](config)


__all__ = ["Batch", "Dataset", "Split", "load_dataset"]
