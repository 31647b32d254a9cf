"""What computes a model in other ways, on models that have been trained: minutes, so slow."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from gradients import difference, gradient
from parity import keep
from photographs import squares

from glow_jax.config import Config, ModelConfig, OptimizerConfig, TrainingConfig
from glow_jax.flow import GradientMemory
from glow_jax.model import Glow, computing, initialise_actnorm
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import make_train_step, new_state, prepare_images

pytestmark = [pytest.mark.slow, pytest.mark.optimised]

STEPS = 300
BATCH = 16
CONFIG = Config(
    model=ModelConfig(image_shape=(32, 32, 3), K=32, L=3, hidden_channels=32, y_classes=0),
    optimizer=OptimizerConfig(warmup=1),
    training=TrainingConfig(batch_size=BATCH, seed=1),
)
INDICES = jnp.arange(BATCH, dtype=jnp.uint32)
PREPARE = partial(prepare_images, config=CONFIG, flips=False, shifts=False)


def train(memory: GradientMemory, *, change: float = 0.0) -> tuple[np.ndarray, Glow, Glow]:
    """Bits/dim of 300 steps on photographs, (300,), and the model after 200 and after 300."""
    images = squares(STEPS * BATCH, 32).reshape(STEPS, BATCH, 32, 32, 3)
    model = jax.jit(lambda key: Glow(CONFIG.model, rngs=nnx.Rngs(key)))(jax.random.key(0))
    model = initialise_actnorm(model, PREPARE(images[0], 1, 0, INDICES))
    graph, params, buffers = nnx.split(computing(model, memory=memory), nnx.Param, ...)
    params = jax.tree.map(lambda leaf: leaf + change, params)
    optimizer = make_optimizer(CONFIG.optimizer, STEPS // 3)
    step = jax.jit(make_train_step(optimizer, CONFIG, prepare=PREPARE))
    state = new_state(nnx.merge(graph, params, buffers), optimizer, CONFIG)
    losses, models = [], {}
    for number, batch in enumerate(images, start=1):
        state, metrics = step(state, batch, np.empty((BATCH, 0), np.float32), INDICES)
        losses.append(float(metrics.loss))
        if number in (200, STEPS):
            models[number] = state.model
    return np.array(losses), models[200], models[STEPS]


@pytest.fixture(scope="module")
def trained() -> tuple[np.ndarray, Glow, Glow]:
    """The training that keeps everything."""
    return train("fast")


@pytest.fixture(scope="module")
def x() -> jax.Array:
    """Images that it has not seen."""
    return PREPARE(squares(BATCH, 32, seed=1), 1, 0, INDICES)


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> Iterator[dict[str, float]]:
    """What the tests of this file measure, by name; printed and kept when they are done."""
    found: dict[str, float] = {}
    yield found
    print("".join(f"\n{name}: {value:.1e}" for name, value in found.items()))
    keep(request, "trained", found)


def bits(model: Glow, x: jax.Array) -> float:
    """Mean bits/dim."""
    return float(model.bits_per_dim(x).mean())


def test_after_200_steps_a_reversible_gradient_is_nearly_the_same(trained, x, measured) -> None:
    _, expected = gradient(trained[1], x, "fast")
    _, found = gradient(trained[1], x, "reversible")
    apart = difference(found, expected)
    measured["reversible gradient after 200 steps, relative difference"] = apart
    assert 0 < apart < 5e-3


def test_a_reversible_training_curve_stays_as_near_as_a_slightly_changed_start(
    trained, measured
) -> None:
    reference = trained[0]
    changed = np.abs(train("fast", change=1e-6)[0] - reference)
    found = np.abs(train("reversible")[0] - reference)
    measured["mean difference of the losses, reversible"] = float(found.mean())
    measured["mean difference of the losses, start changed by 1e-6"] = float(changed.mean())
    assert reference[-1] < reference[0] - 1  # it did train
    assert found.mean() <= 2 * changed.mean()


def test_bfloat16_networks_hardly_change_the_bits_of_a_trained_model(trained, x, measured) -> None:
    model = trained[2]
    rounded = computing(model, dtype="bfloat16")
    change = bits(rounded, x) - bits(model, x)
    errors = {
        "float32": (model, model),
        "bfloat16": (rounded, rounded),
        "bfloat16, decoded in float32": (rounded, model),
    }
    measured["bits/dim in bfloat16 minus float32"] = change
    for name, (encoder, decoder) in errors.items():
        back = decoder.decode(encoder.encode(x).latents)
        measured[f"reconstruction error, {name}"] = float(jnp.abs(back - x).max())
    assert 0 < abs(change) < 0.005
