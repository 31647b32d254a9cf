"""Small models, trained on digits by some number of devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from glow_jax.config import (
    Config,
    DataConfig,
    Dequantization,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from glow_jax.data import load_dataset
from glow_jax.devices import Devices, SharedStep, mean_over_devices
from glow_jax.model import Glow, initialise_actnorm
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.signals import Requests
from glow_jax.training.step import Metrics, TrainState, make_train_step, new_state, prepare_images

NEEDS_EIGHT = pytest.mark.skipif(
    jax.local_device_count() < 8,
    reason="tests/conftest.py makes 8 virtual devices, but JAX was started before it",
)
STEPS = 20
LR = 1e-3
# How far runs on other numbers of devices may be from each other, as the documentation says.
LOSSES_APART = 1e-5
FLOAT64_APART = 1e-9
NOTHING = Requests.of()


def config_of(
    *,
    hidden_channels: int = 8,
    K: int = 2,
    L: int = 2,
    dequantization: Dequantization = "uniform",
    batch_size: int = 16,
    **training,
) -> Config:
    """A run on digits that flips and shifts are not left out of."""
    model = ModelConfig(
        K=K,
        L=L,
        hidden_channels=hidden_channels,
        image_shape=(8, 8, 1),
        y_classes=0,
        n_bits=4,
        dequantization=dequantization,
    )
    return Config(
        model=model,
        optimizer=OptimizerConfig(lr=LR, warmup=0),
        training=TrainingConfig(seed=1, batch_size=batch_size, **training),
    )


def images_of(config: Config, steps: int = STEPS) -> list[tuple[np.ndarray, ...]]:
    """Digits, so that there is something to learn, an update's images at a time."""
    size = config.training.images_per_update
    digits = load_dataset(DataConfig(dataset="digits")).train
    pixels = digits[np.arange(size * steps)].images
    place = np.arange(len(pixels), dtype=np.uint32)
    parts = (slice(step * size, (step + 1) * size) for step in range(steps))
    return [(pixels[part], np.empty((size, 0), np.float32), place[part]) for part in parts]


def start(config: Config, dtype: type) -> tuple[Glow, Callable[..., jax.Array]]:
    """A model initialised as training does it, and its preprocessing, in float32 or float64."""

    def prepare(images, seed, draw, indices):
        x = prepare_images(images, seed, draw, indices, config, flips=True, shifts=True)
        return x.astype(dtype)

    @jax.jit
    def build(images: np.ndarray, indices: np.ndarray) -> Glow:
        model = Glow(config.model, rngs=nnx.Rngs(0))
        model = jax.tree.map(
            lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
            model,
        )
        return initialise_actnorm(model, prepare(images, 1, 99, indices))

    images, _, indices = images_of(config_of(), steps=1)[0]
    return build(images, indices), prepare


def shared_step(
    config: Config, count: int, dtype: type = np.float32
) -> tuple[SharedStep[TrainState, Metrics], TrainState]:
    """The training step on `count` devices, and the state from which it starts."""
    model, prepare = start(config, dtype)
    optimizer = make_optimizer(config.optimizer, updates_per_epoch=1)
    step = make_train_step(optimizer, config, prepare=prepare, mean=mean_over_devices)
    devices = Devices(count)
    return devices.training_step(step), devices.replicate(new_state(model, optimizer, config))


def weights_of(model: Glow) -> list[jax.Array]:
    """The trained arrays of a model."""
    return jax.tree.leaves(nnx.state(model, nnx.Param))
