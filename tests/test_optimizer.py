"""The learning rate, the optimizer and the average of the parameters, by hand."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glow_jax.config import OptimizerConfig
from glow_jax.training.optimizer import (
    learning_rate,
    make_optimizer,
    scale_by_openai_adamax,
    update_average,
)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(0, [1, 1, 1]), (1, [1, 1, 1]), (2.5, [1 / 2.5, 2 / 2.5, 1]), (5, [0.2, 0.4, 0.6])],
)
def test_warmup_is_the_published_one(warmup: float, expected: list[float]) -> None:
    config = OptimizerConfig(lr=1e-3, warmup=warmup)
    schedule = learning_rate(config, updates_per_epoch=7, epochs=3)
    rates = [np.asarray(schedule(jnp.asarray(update))).item() for update in (0, 7, 14)]
    np.testing.assert_allclose(rates, 1e-3 * np.array(expected), rtol=1e-6)
    assert np.asarray(schedule(jnp.asarray(6))).item() == rates[0]


@pytest.mark.parametrize("kind", ["adamax", "openai_adamax"])
@pytest.mark.parametrize("final_lr", [0, 1e-4])
def test_cosine_goes_from_the_warm_up_to_its_floor(
    kind: Literal["adamax", "openai_adamax"], final_lr: float
) -> None:
    config = OptimizerConfig(kind, lr=1e-3, schedule="cosine", final_lr=final_lr, warmup=2)
    schedule = learning_rate(config, updates_per_epoch=5, epochs=6)
    # Warm-up in updates 0 to 9; then 20 updates of cosine, and of the floor what would follow.
    rates = np.array([np.asarray(schedule(jnp.asarray(update))).item() for update in range(40)])
    warm_up = np.arange(10) / 10 if kind == "openai_adamax" else np.repeat([0.5, 1], 5)
    np.testing.assert_allclose(rates[:10], 1e-3 * warm_up, rtol=1e-6)
    heights = [(1 + math.cos(math.pi * update / 20)) / 2 for update in range(20)]
    expected = final_lr + (1e-3 - final_lr) * np.array(heights)
    np.testing.assert_allclose(rates[10:30], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(rates[30:], final_lr, rtol=0, atol=1e-10)
    assert rates[10] == pytest.approx(1e-3)
    assert rates[20] == pytest.approx((1e-3 + final_lr) / 2)


def test_an_update_has_the_rate_of_the_schedule() -> None:
    config = OptimizerConfig("adam", lr=1e-2, schedule="cosine", warmup=0)
    optimizer = make_optimizer(config, updates_per_epoch=2, epochs=2)
    params = jnp.zeros(1)
    state = optimizer.init(params)
    for rate in (1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0):
        # Adam moves by the rate if all gradients are the same.
        updates, state = optimizer.update(jnp.ones(1), state, params)
        np.testing.assert_allclose(np.asarray(updates), [-1e-2 * rate], rtol=1e-4, atol=1e-12)


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


@pytest.mark.parametrize(
    ("updates_per_epoch", "polyak_epochs", "warmup"), [(7, 1.5, 2.0), (7, 1.0, 0.0), (1, 1.0, 4.5)]
)
def test_openai_adamax_by_hand(
    updates_per_epoch: int, polyak_epochs: float, warmup: float, x64: None
) -> None:
    config = OptimizerConfig("openai_adamax", lr=0.1, warmup=warmup, polyak_epochs=polyak_epochs)
    optimizer = make_optimizer(config, updates_per_epoch)
    gradients = np.random.default_rng(0).normal(size=(30, 5)) * [1, 1e-3, 1e-8, 10, 0]
    gradients[11:, 3] *= 1e-4  # the largest gradient is forgotten slowly
    weights = np.array([1.0, -2.0, 3.0, 0.0, 4.0])
    ours, state = jnp.asarray(weights), optimizer.init(jnp.asarray(weights))
    beta2 = 1 - 1 / (updates_per_epoch * polyak_epochs)
    m1, m2, t = np.zeros(5), np.zeros(5), 1
    for done, gradient in enumerate(gradients):
        updates, state = optimizer.update(jnp.asarray(gradient), state, ours)
        ours += jnp.asarray(updates)
        rate = 0.1 * (min(1, done / (updates_per_epoch * warmup)) if warmup else 1)
        m1 = 0.9 * m1 + 0.1 * gradient
        m2 = np.maximum(beta2 * m2, np.abs(gradient))
        alpha = rate * np.sqrt(1 - beta2**t) / (1 - 0.9**t)
        weights = weights - alpha * m1 / (m2 + 1e-8)
        t += 1
        np.testing.assert_allclose(np.asarray(ours), weights, rtol=1e-13, atol=1e-13)
    kept = optax.tree.get(state, "ScaleByAdamState")
    np.testing.assert_allclose(kept.mu, m1, rtol=1e-13)
    np.testing.assert_allclose(kept.nu, m2, rtol=1e-13)
    assert [int(count) for _, count in optax.tree.get_all_with_path(state, "count")] == [30, 30]


def test_openai_adamax_has_float32s_digits_in_epochs_of_any_length() -> None:
    optimizer = scale_by_openai_adamax(memory=2e6)
    update, _ = optimizer.update(jnp.array([0.5]), optimizer.init(jnp.zeros(1)))
    np.testing.assert_allclose(np.asarray(update), [np.sqrt(1 / 2e6)], rtol=1e-6)


def test_openai_adamax_warms_up_from_zero() -> None:
    config = OptimizerConfig("openai_adamax", lr=1e-3, warmup=2.5)
    optimizer = make_optimizer(config, updates_per_epoch=4)
    params, gradient = jnp.ones(3), jnp.array([1.0, -2.0, 0.0])
    first, state = optimizer.update(gradient, optimizer.init(params), params)
    second, _ = optimizer.update(gradient, state, params)
    assert np.asarray(first).tolist() == [0, 0, 0]
    assert np.asarray(second)[:2].tolist() != [0, 0]
    schedule = learning_rate(config, updates_per_epoch=4, epochs=10)
    rates = [np.asarray(schedule(jnp.asarray(update))).item() for update in (0, 1, 5, 10, 99)]
    np.testing.assert_allclose(rates, [0, 1e-4, 5e-4, 1e-3, 1e-3], rtol=1e-6)


def test_average_forgets_its_start_and_then_decays() -> None:
    average = {"w": jnp.array(1.0)}
    first = update_average(average, {"w": jnp.array(2.0)}, 0.9, jnp.array(0))
    late = update_average(average, {"w": jnp.array(2.0)}, 0.9, jnp.array(10_000))
    assert float(first["w"]) == pytest.approx(0.1 * 1 + 0.9 * 2)
    assert float(late["w"]) == pytest.approx(0.9 * 1 + 0.1 * 2)


@pytest.mark.parametrize("kind", ["adamax", "adam", "openai_adamax"])
def test_optimizer_state_has_one_structure_whatever_is_clipped(
    kind: Literal["adamax", "adam", "openai_adamax"],
) -> None:
    params = {"w": jnp.ones(2)}
    settings = [OptimizerConfig(kind, max_grad_clip=size, max_grad_norm=size) for size in (0, 1)]
    states = [make_optimizer(config, updates_per_epoch=1).init(params) for config in settings]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert len(optax.tree.get_all_with_path(states[0], "count")) == 2
