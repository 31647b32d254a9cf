"""Valid small checkpoints of every layout. To add a layout, add its builder to `LAYOUTS`."""

import functools
import random
from collections.abc import Callable

import numpy as np

from glow_jax import ModelConfig
from glow_jax.bridge import mapping
from tests.torch_files import Values, as_chaiyujin, make_rosinality, make_values

from . import torch_saves
from .sample import Sample

Builder = Callable[[random.Random], Sample]
"""Builds a checkpoint, damaged in ways that only its layout has, or not damaged at all."""

_PUBLISHED = [
    {},
    {"flow_coupling": "additive", "LU_decomposed": False},
    {"y_condition": True, "y_classes": 3, "learn_top": False},
    {"L": 2, "image_shape": (4, 4, 3), "hidden_channels": 3},
    {"flow_permutation": "reverse", "K": 2},
]


@functools.cache
def _values(number: int) -> Values:
    """Weights of a small model in the published layout; they are not to be written to."""
    return make_values(_config(number))


def _config(number: int) -> ModelConfig:
    small = {"K": 1, "L": 1, "hidden_channels": 2, "image_shape": (4, 4, 1)}
    return ModelConfig(**{**small, **_PUBLISHED[number]})  # pyright: ignore[reportArgumentType]


def published(rng: random.Random) -> Sample:
    """y0ast/Glow-PyTorch."""
    number = rng.randrange(len(_PUBLISHED))
    config = _config(number)
    hparams = {
        **{"K": config.K, "L": config.L, "hidden_channels": config.hidden_channels},
        **{"flow_coupling": config.flow_coupling, "LU_decomposed": config.LU_decomposed},
        **{"flow_permutation": config.flow_permutation, "learn_top": config.learn_top},
        **{"y_condition": config.y_condition, "actnorm_scale": 1.0, "lr": 5e-4, "warmup": 5},
        **{"batch_size": 64, "dataset": "cifar10", "augment": True, "seed": 3, "max_grad_clip": 0},
    }
    options = {} if config.flow_permutation == "invconv" else {"flow_permutation": "reverse"}
    keys = tuple(mapping.parameter_keys(config))
    return torch_saves.build(rng, _values(number), keys, hparams, options)


def chaiyujin(rng: random.Random) -> Sample:
    """chaiyujin/glow-pytorch: the published layout under other names."""
    number = rng.choice([0, 1, 3])
    values = as_chaiyujin(_values(number))
    if "prior_h" in values:
        values["prior_h"] = np.repeat(values["prior_h"], 2, axis=0)
    hparams = {"Glow": {"K": 1, "L": _config(number).L, "hidden_channels": 2}}
    return torch_saves.build(rng, values, tuple(values), hparams, {})


def rosinality(rng: random.Random) -> Sample:
    """rosinality/glow-pytorch, which has no settings, and does not tell the size of its images."""
    values = _rosinality(rng.choice([1, 2]), rng.random() < 0.5)
    options: dict[str, object] = {"image_size": rng.choice([*[4] * 12, 8, 6, 0, -4, None, 2**40])}
    return torch_saves.build(rng, values, (), {}, options)


@functools.cache
def _rosinality(levels: int, is_affine: bool) -> Values:
    return make_rosinality(K=1, L=levels, hidden=2, affine=is_affine)


LAYOUTS: dict[str, Builder] = {
    "y0ast": published,
    "chaiyujin": chaiyujin,
    "rosinality": rosinality,
}


def whole_checkpoint() -> Sample:
    """A published checkpoint without damage."""
    samples = (published(random.Random(seed)) for seed in range(1000))
    return next(
        one for one in samples if set(one.damage) <= {"bare", "zip"} and len(one.files) == 1
    )
