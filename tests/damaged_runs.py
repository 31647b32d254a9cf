"""A saved run of three steps, which tests damage."""

import shutil
from pathlib import Path

import pytest
from flax import nnx

import glow_jax
from glow_jax.config import Config, ModelConfig
from glow_jax.runs import CheckpointWriter, load_run, write_config

CONFIG = Config(model=ModelConfig(K=1, L=1, hidden_channels=2, image_shape=(2, 2, 1)))
SCORES = {5: 1.0, 6: 3.0, 7: 2.0}


def new_model() -> glow_jax.Glow:
    return nnx.jit(lambda: glow_jax.Glow(CONFIG.model, rngs=nnx.Rngs(0)))()


def three_steps(factory: pytest.TempPathFactory, copy: Path) -> Path:
    """A copy of a run with three scored steps, the first of them the best."""
    folder = factory.getbasetemp() / "three_steps"
    if not folder.exists():
        model = new_model()
        write_config(folder, CONFIG)
        with CheckpointWriter(folder, keep_best=True) as writer:
            for step, score in SCORES.items():
                writer.save(step, model, validation_bits_per_dim=score)
    return Path(shutil.copytree(folder, copy))


def refusal(run: Path, step: object = None) -> str:
    with pytest.raises(glow_jax.GlowError) as error:
        load_run(run, step)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(error.value)
    return str(error.value)


def step_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / str(step)
