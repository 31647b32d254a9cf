"""One training step: its loss, its update, and what it skips."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from training_runs import identical

import glow_jax
from glow_jax.compiler import fast_to_compile
from glow_jax.config import Config, ModelConfig, OptimizerConfig, TrainingConfig
from glow_jax.devices import Devices, mean_over_devices
from glow_jax.evaluation.diagnosis import first_nonfinite_layer
from glow_jax.layers import Conv1x1LU
from glow_jax.training.optimizer import make_optimizer, update_average
from glow_jax.training.signals import Requests
from glow_jax.training.step import (
    Metrics,
    Prepare,
    TrainState,
    averaged_model,
    loss_function,
    make_train_step,
    new_state,
    prepare_images,
)

OVERFLOWING = jnp.full((2, 4), 200.0)  # logs beyond float32


def small_config(**changes) -> Config:
    settings = {"K": 2, "L": 2, "hidden_channels": 8, "image_shape": (8, 8, 1), "y_classes": 4}
    model = ModelConfig(**{**settings, "n_bits": 4, **changes})
    return Config(model=model, training=TrainingConfig(seed=1, batch_size=8))


def build(config: Config) -> glow_jax.Glow:
    """A new model: as one program, which is faster than array by array."""
    return nnx.jit(lambda: glow_jax.Glow(config.model, rngs=nnx.Rngs(0)))()


def jitted(function: Callable) -> jax.stages.Wrapped:
    return jax.jit(function, compiler_options=fast_to_compile("cpu"))


def preparation(config: Config) -> Prepare:
    return partial(prepare_images, config=config, flips=True, shifts=True)


def small_batch(multi_hot: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
    one_hot = np.eye(4, dtype=np.float32)[random.integers(0, 4, 8)]
    several = random.integers(0, 2, (8, 4)).astype(np.float32)
    return images, several if multi_hot else one_hot, np.arange(8, dtype=np.uint32)


def changing(state: TrainState) -> tuple:
    """What an update changes."""
    return nnx.state(state.model, nnx.Param), state.average, state.optimizer_state


def choose_as_on(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whatever depends on the platform be traced as it is on another one."""

    def choose(
        *arguments: object, default: Callable[..., object], **others: Callable[..., object]
    ) -> object:
        return others.get(platform, default)(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)


@pytest.mark.parametrize("multi_class", [False, True])
def test_conditional_loss_weighs_the_classifier(multi_class: bool) -> None:
    config = small_config(y_condition=True, multi_class=multi_class)
    model = build(config)
    assert model.classifier is not None
    model.classifier.kernel[...] = jax.random.normal(jax.random.key(1), (8 * 1, 4))
    images, y, _ = small_batch(multi_hot=multi_class)
    x = glow_jax.dequantize(jnp.asarray(images), jax.random.key(0), n_bits=4)
    loss, bits = loss_function(model, x, jnp.asarray(y), config)

    code = model.encode(x, jnp.asarray(y))
    expected_bits = np.mean(4 - np.asarray(code.log_prob, np.float64) / (64 * math.log(2)))
    logits = np.asarray(model.classify(code.latents), np.float64)
    if multi_class:
        entropy = np.mean(np.logaddexp(0, logits) - y * logits)
    else:
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        entropy = -np.mean((y * log_p).sum(1))
    assert float(bits) == pytest.approx(expected_bits, abs=1e-5)
    assert float(loss) == pytest.approx(expected_bits + 0.01 * entropy, abs=1e-5)


def test_step_trains_only_parameters_and_decays_masked_entries() -> None:
    config = small_config(L=1)
    model = build(config)
    optimizer = make_optimizer(config.optimizer, 1)
    step = jitted(make_train_step(optimizer, config, prepare=preparation(config)))
    state = new_state(model, optimizer, config)
    losses = []
    for _ in range(20):
        state, metrics = step(state, *small_batch())
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0]
    assert int(state.step) == 20
    untrained = nnx.Not(nnx.Param)
    before, after = nnx.state(model, untrained), nnx.state(state.model, untrained)
    assert jax.tree.leaves(before)
    assert identical(before, after)
    permutation = state.model.levels[0].steps.permutation
    assert isinstance(permutation, Conv1x1LU)
    diagonal = jnp.diagonal(permutation.lower[...], axis1=1, axis2=2)
    assert (diagonal < 1).all()  # masked in use, yet decayed as stored


class Case(NamedTuple):
    """A model, and a step of it that chooses its update as on some platform."""

    config: Config
    model: glow_jax.Glow
    optimizer: optax.GradientTransformation
    step: Callable[..., tuple[TrainState, Metrics]]
    program: str

    def start(self) -> TrainState:
        return new_state(self.model, self.optimizer, self.config)


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    """A step whose update is in a branch, as on CPUs, and one that selects it, as elsewhere."""
    config = small_config(K=1, L=1)  # K is an axis of 1
    config = dataclasses.replace(config, optimizer=OptimizerConfig(ema_decay=0.9))
    model, optimizer = build(config), optax.sgd(0.1, momentum=0.9)
    found = {}
    for platform in ("cpu", "cuda"):
        with pytest.MonkeyPatch.context() as monkeypatch:
            choose_as_on(platform, monkeypatch)
            step = jitted(make_train_step(optimizer, config, prepare=preparation(config)))
            lowered = step.lower(new_state(model, optimizer, config), *small_batch())
        compiled = lowered.compile()
        program = compiled.as_text() or ""
        found[platform] = Case(config, model, optimizer, compiled, program)
    return found


@pytest.fixture(scope="module")
def moved(cases: dict[str, Case]) -> nnx.State:
    """The parameters after one update, computed without a step."""
    config, model = cases["cpu"].config, cases["cpu"].model
    images, labels, indices = small_batch()
    x = preparation(config)(images, config.training.seed, 0, indices)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss_of(params: nnx.State) -> jax.Array:
        return loss_function(nnx.merge(graph, params, rest), x, jnp.asarray(labels), config)[0]

    return jax.tree.map(lambda p, g: p - 0.1 * g, params, jitted(jax.grad(loss_of))(params))


PLATFORMS = pytest.mark.parametrize("platform", ["cpu", "cuda"])


@PLATFORMS
def test_step_moves_parameters_and_their_average(
    platform: str, cases: dict[str, Case], moved: nnx.State
) -> None:
    case = cases[platform]
    params = nnx.state(case.model, nnx.Param)
    after, _ = case.step(case.start(), *small_batch())
    average = update_average(params, moved, 0.9, after.step - 1)
    averaged = averaged_model(after)
    assert averaged is not None
    found = nnx.state(after.model, nnx.Param), after.average, nnx.state(averaged, nnx.Param)
    for one, other in zip(found, (moved, average, average), strict=True):
        distances = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one, other)
        assert max(jax.tree.leaves(distances)) < 1e-5
    assert optax.tree.norm(jax.tree.map(jnp.subtract, moved, params)) > 1e-2


@PLATFORMS
def test_step_skips_what_is_not_finite(platform: str, cases: dict[str, Case]) -> None:
    case = cases[platform]
    before, _ = case.step(case.start(), *small_batch())  # its moments are not zero any more
    before.model.levels[0].steps.actnorm.logs[...] = OVERFLOWING[:1]
    after, metrics = case.step(before, *small_batch())
    after, metrics = case.step(after, *small_batch())
    assert not np.isfinite(float(metrics.loss))
    assert (int(after.skipped), int(metrics.skipped_in_a_row)) == (2, 2)
    assert identical(changing(before), changing(after))


def test_a_branch_and_a_selection_are_the_same_update(cases: dict[str, Case]) -> None:
    states = []
    for case in cases.values():
        state = case.start()
        for _ in range(3):
            state, _ = case.step(state, *small_batch())
        states.append(state)
    one, other = (jax.tree.leaves(changing(state)) for state in states)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_step_branches_on_cpus_and_selects_elsewhere(cases: dict[str, Case]) -> None:
    assert cases["cpu"].program.count(" conditional(") == 1
    assert cases["cuda"].program.count(" conditional(") == 0

    # The program that is made where nothing is patched, for platforms that need not be there.
    case = cases["cpu"]
    step = jax.jit(make_train_step(case.optimizer, case.config, prepare=preparation(case.config)))
    traced = step.trace(case.start(), *small_batch())
    branches = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.case")
        for platform in ("cpu", "cuda", "tpu")
    }
    assert branches["cpu"] == branches["cuda"] + 1 == branches["tpu"] + 1


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_devices_skip_what_is_not_finite(count: int) -> None:
    if jax.local_device_count() < count:
        pytest.skip("tests/conftest.py makes 8 virtual devices, but JAX was started before it")
    config = small_config(L=1)
    config = dataclasses.replace(config, optimizer=OptimizerConfig(ema_decay=0.9))
    optimizer = make_optimizer(config.optimizer, 1)
    step = make_train_step(optimizer, config, prepare=preparation(config), mean=mean_over_devices)
    devices = Devices(count)
    run = devices.training_step(step)
    state = devices.replicate(new_state(build(config), optimizer, config))
    # After one good update its moments are not zero any more.
    state, _, _ = run(state, Requests.of(), *small_batch())
    state.model.levels[0].steps.actnorm.logs[...] = jnp.stack([OVERFLOWING] * count)
    before = jax.tree.map(np.array, changing(state))  # whose memory is given away
    state, metrics, _ = run(state, Requests.of(), *small_batch())
    assert not np.isfinite(devices.to_host(metrics.loss))
    assert identical(before, jax.tree.map(np.array, changing(state)))


@pytest.mark.slow
def test_diagnosis_names_the_layer() -> None:
    model = build(small_config())
    x = jnp.zeros((2, 8, 8, 1))
    assert first_nonfinite_layer(model, x, None) is None
    model.levels[1].steps.coupling.network.conv_out.bias[...] = (
        jnp.zeros((2, 8)).at[1, 0].set(jnp.nan)
    )
    assert first_nonfinite_layer(model, x, None) == "level 2, step 2, coupling"
    assert first_nonfinite_layer(model, x + jnp.inf, None) == "the input"
