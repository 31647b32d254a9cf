"""The learning rate, the optimizer and the average of the parameters, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glow_jax.config import OptimizerConfig
from glow_jax.training.optimizer import learning_rate, make_optimizer, update_average


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(0, [1, 1, 1]), (1, [1, 1, 1]), (2.5, [1 / 2.5, 2 / 2.5, 1]), (5, [0.2, 0.4, 0.6])],
)
def test_warmup_is_the_published_one(warmup: float, expected: list[float]) -> None:
    schedule = learning_rate(OptimizerConfig(lr=1e-3, warmup=warmup), updates_per_epoch=7)
    rates = [np.asarray(schedule(jnp.asarray(update))).item() for update in (0, 7, 14)]
    np.testing.assert_allclose(rates, 1e-3 * np.array(expected), rtol=1e-6)
    assert np.asarray(schedule(jnp.asarray(6))).item() == rates[0]


def test_adamax_with_l2_decay_and_clipping_by_hand() -> None:
    config = OptimizerConfig(lr=0.1, warmup=0, max_grad_clip=0.5, max_grad_norm=0.4)
    optimizer = make_optimizer(config, updates_per_epoch=1)
    parameter, state = np.array([1.0, -2.0, 3.0]), optimizer.init(jnp.array([1.0, -2.0, 3.0]))
    moment, largest = np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(np.array([[2.0, -0.1, 0.0], [-0.3, 0.2, 0.0]]), start=1):
        updates, state = optimizer.update(
            jnp.asarray(gradient, jnp.float32), state, jnp.asarray(parameter, jnp.float32)
        )
        clipped = np.clip(gradient, -0.5, 0.5)
        clipped *= min(1, 0.4 / np.linalg.norm(clipped))
        decayed = clipped + 5e-5 * parameter
        moment = 0.9 * moment + 0.1 * decayed
        largest = np.maximum(0.999 * largest, np.abs(decayed) + 1e-8)
        expected = -0.1 / (1 - 0.9**step) * moment / largest
        np.testing.assert_allclose(np.asarray(updates), expected, rtol=1e-5)
        parameter = parameter + expected


def test_average_forgets_its_start_and_then_decays() -> None:
    average = {"w": jnp.array(1.0)}
    first = update_average(average, {"w": jnp.array(2.0)}, 0.9, jnp.array(0))
    late = update_average(average, {"w": jnp.array(2.0)}, 0.9, jnp.array(10_000))
    assert float(first["w"]) == pytest.approx(0.1 * 1 + 0.9 * 2)
    assert float(late["w"]) == pytest.approx(0.9 * 1 + 0.1 * 2)


def test_optimizer_state_has_one_structure_whatever_is_clipped() -> None:
    params = {"w": jnp.ones(2)}
    states = [
        make_optimizer(OptimizerConfig(max_grad_clip=clip, max_grad_norm=norm), 1).init(params)
        for clip, norm in ((0, 0), (1, 1))
    ]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert len(optax.tree.get_all_with_path(states[0], "count")) == 2
