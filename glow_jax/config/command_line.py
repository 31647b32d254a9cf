"""The command line that a configuration was made from."""

import dataclasses

from glow_jax.catalogue import find
from glow_jax.config.checks import NO_FLAG
from glow_jax.config.presets import PRESETS
from glow_jax.config.tree import Config

_SECTIONS = ("model", "data", "optimizer", "training")
# Paths, and what another machine may not have: images that are there already.
_OF_A_MACHINE = ("dataroot", "download", "saved_model", "saved_optimizer")


def defaults_for(preset: str | None, dataset: str) -> Config:
    """The values of flags that are not given: the preset's, and the data set's usual n_bits.

    Args:
        preset: its name, or None.
        dataset: the name of the data set; the preset's own keeps the preset's n_bits.
    """
    default = Config() if preset is None else PRESETS[preset]
    if preset is not None and dataset == default.data.dataset:
        return default
    entry = find(dataset)
    n_bits = Config().model.n_bits if entry is None else entry.n_bits
    return dataclasses.replace(default, model=dataclasses.replace(default.model, n_bits=n_bits))


def training_flags(config: Config) -> list[str]:
    """The flags of `train.py` that a run was started with, without what holds on its machine only.

    A run that started from a saved model names its architecture instead.
    """
    preset = config.preset if config.preset in PRESETS else None
    default = defaults_for(preset, config.data.dataset)
    flags = [] if preset is None else ["--preset", preset]
    for section in _SECTIONS:
        ours, usual = getattr(config, section), getattr(default, section)
        for field in dataclasses.fields(ours):
            value = getattr(ours, field.name)
            has_flag = not field.metadata.items() >= NO_FLAG.items()
            if has_flag and field.name not in _OF_A_MACHINE and value != getattr(usual, field.name):
                flags += _flag(field.name, value)
    return flags


def _flag(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return [f"--{name}", str(value)]
