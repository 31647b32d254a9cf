"""Training with reversible gradients, beside training that keeps everything: minutes, so slow."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from photographs import squares
from test_computing import difference, gradient

from glow_jax.config import Config, ModelConfig, OptimizerConfig, TrainingConfig
from glow_jax.flow import Memory
from glow_jax.model import Glow, computing, initialise_actnorm, put_together, take_apart
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import TrainState, make_train_step, new_state, prepare_images

STEPS = 300
BATCH = 16
CONFIG = Config(
    model=ModelConfig(image_shape=(32, 32, 3), K=32, L=3, hidden_channels=32, y_classes=0),
    optimizer=OptimizerConfig(warmup=1),
    training=TrainingConfig(batch_size=BATCH, seed=1),
)
PREPARE = partial(prepare_images, config=CONFIG, flips=False, shifts=False)


def train(memory: Memory, *, change: float = 0.0, steps: int = STEPS) -> tuple[list, TrainState]:
    """Bits/dim of each step on photographs, and the state at the end."""
    images = squares(steps * BATCH, 32).reshape(steps, BATCH, 32, 32, 3)
    indices = jnp.arange(BATCH, dtype=jnp.uint32)
    model = jax.jit(lambda key: Glow(CONFIG.model, rngs=nnx.Rngs(key)))(jax.random.key(0))
    model = initialise_actnorm(model, PREPARE(images[0], 0, indices))
    parts = take_apart(computing(model, memory=memory))
    parts = parts._replace(params=jax.tree.map(lambda leaf: leaf + change, parts.params))
    optimizer = make_optimizer(CONFIG.optimizer, STEPS // 3)
    step = jax.jit(make_train_step(parts.graph, optimizer, CONFIG, prepare=PREPARE))
    state = new_state(parts, optimizer, CONFIG)
    losses = []
    for batch in images:
        state, metrics = step(state, batch, np.empty((BATCH, 0), np.float32), indices)
        losses.append(float(metrics.loss))
    return losses, state


@pytest.mark.slow
def test_after_200_steps_a_reversible_gradient_is_nearly_the_same() -> None:
    _, state = train("fast", steps=200)
    graph = take_apart(Glow(CONFIG.model, rngs=nnx.Rngs(0))).graph
    model = put_together(graph, state.params, state.buffers)
    x = PREPARE(squares(BATCH, 32, seed=1), 0, jnp.arange(BATCH, dtype=jnp.uint32))
    _, expected = gradient(model, x, "fast")
    _, found = gradient(model, x, "reversible")
    apart = difference(found, expected)
    print(f"\nreversible gradient after 200 steps: relative difference {apart:.1e}")
    assert 0 < apart < 5e-3


@pytest.mark.slow
def test_a_reversible_training_curve_stays_as_near_as_a_slightly_changed_start() -> None:
    reference = np.array(train("fast")[0])
    changed = np.abs(np.array(train("fast", change=1e-6)[0]) - reference)
    found = np.abs(np.array(train("reversible")[0]) - reference)
    print(
        f"\n{STEPS} steps, {reference[0]:.3f} to {reference[-1]:.3f} bits/dim; mean difference of "
        f"the losses: reversible {found.mean():.1e}, start changed by 1e-6 {changed.mean():.1e}"
    )
    assert reference[-1] < reference[0] - 1  # it did train
    assert found.mean() <= 2 * changed.mean()
