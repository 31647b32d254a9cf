"""Run folders and scripts for the tests of out-of-distribution detection."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
from flax import nnx

from glow_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
from glow_jax.model import Glow
from glow_jax.runs import save_weights

GREY = ModelConfig(
    K=1, L=2, hidden_channels=4, flow_coupling="additive", image_shape=(8, 8, 1), n_bits=4
)


@functools.cache
def untrained(config: ModelConfig = GREY, seed: int = 0) -> Glow:
    """A model that only rotates: its networks are zero, its actnorms and priors the identity.

    With additive couplings, log p(x) = -|x|^2 / 2 - D / 2 log(2 pi) for any weights.
    """
    return _builder(config)(jax.random.key(seed))


@functools.cache
def _builder(config: ModelConfig) -> Callable[[jax.Array], Glow]:
    """One compiled program for models of every seed."""
    return jax.jit(lambda key: Glow(config, rngs=nnx.Rngs(key)))


def save_run(folder: Path, model: Glow, *, dataset: str = "digits", step: int = 0, **data) -> Path:
    """A run folder of a model, as if it had been trained on a data set."""
    config = Config(
        model=model.config,
        data=DataConfig(dataset=dataset, **data),
        training=TrainingConfig(seed=1, eval_batch_size=100),
    )
    save_weights(folder, config, model, step=step)
    return folder
