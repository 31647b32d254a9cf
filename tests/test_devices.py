"""Data parallelism: results do not depend on the number of devices."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_runs import (
    FLOAT64_APART,
    LOSSES_APART,
    LR,
    NEEDS_EIGHT,
    NOTHING,
    STEPS,
    config_of,
    images_of,
    shared_step,
    start,
    weights_of,
)

import glow_jax
from glow_jax.compiler import fast_to_compile
from glow_jax.config import Config, DataConfig, TrainingConfig
from glow_jax.data import load_dataset
from glow_jax.data.dataset import InMemory
from glow_jax.devices import Devices, losing_processes, processes
from glow_jax.errors import GlowError
from glow_jax.evaluation.likelihood import likelihood
from glow_jax.training import resolve
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import make_train_step, new_state
from glow_jax.typing import Array

pytestmark = NEEDS_EIGHT


def slow(*values: int):
    return pytest.param(*values, marks=pytest.mark.slow)


def run(config: Config, count: int, dtype: type = np.float32) -> tuple[np.ndarray, list]:
    """Losses and final parameters of 20 steps on `count` devices."""
    devices = Devices(count)
    step, state = shared_step(config, count, dtype)
    losses = []
    for batch in images_of(config):
        state, metrics, _ = step(state, NOTHING, *batch)
        losses.append(devices.to_host(metrics.loss))
    return np.array(losses), [np.asarray(leaf)[0] for leaf in weights_of(state.model)]


def assert_same(one: tuple[np.ndarray, list], other: tuple[np.ndarray, list]) -> None:
    """The tolerances of two runs that differ in the order of sums.

    Adamax moves by the learning rate however small a gradient is, so that a sum's order can show.
    """
    np.testing.assert_allclose(one[0], other[0], rtol=0, atol=LOSSES_APART)
    differences = np.concatenate(
        [np.abs(a - b).ravel() for a, b in zip(one[1], other[1], strict=True)]
    )
    assert np.mean(differences <= 1e-4) >= 0.9999
    assert differences.max() <= 2 * STEPS * LR


@pytest.fixture(scope="module")
def one_device() -> tuple[np.ndarray, list]:
    return run(config_of(), 1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4, 8])
def test_training_does_not_depend_on_the_number_of_devices(count: int, one_device) -> None:
    assert one_device[0][-1] < one_device[0][0] - 0.1  # it does learn
    assert_same(one_device, run(config_of(), count))


@pytest.mark.slow
def test_variational_training_does_not_depend_on_the_number_of_devices() -> None:
    config = config_of(K=1, L=1, dequantization="variational")
    assert_same(run(config, 1), run(config, 4))


@pytest.mark.slow
def test_a_step_compiled_for_devices_is_the_function_itself(one_device) -> None:
    config = config_of()
    model, prepare = start(config, np.float32)
    optimizer = make_optimizer(config.optimizer, updates_per_epoch=1)
    step = make_train_step(optimizer, config, prepare=prepare)
    step = jax.jit(step, compiler_options=fast_to_compile("cpu"))
    state = new_state(model, optimizer, config)
    losses = []
    for batch in images_of(config):
        state, metrics = step(state, *batch)
        losses.append(metrics.loss)
    assert_same(one_device, (np.array(losses), weights_of(state.model)))


@pytest.mark.parametrize(("count", "L"), [slow(2, 1), slow(2, 2), slow(8, 2)])
def test_in_float64_devices_agree_to_the_last_digits(count: int, L: int, x64: None) -> None:
    one, several = (run(config_of(L=L), n, np.float64) for n in (1, count))
    np.testing.assert_allclose(one[0], several[0], rtol=0, atol=FLOAT64_APART)
    for a, b in zip(one[1], several[1], strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=FLOAT64_APART)


@pytest.mark.parametrize(("count", "L"), [(2, 1), slow(1, 2), slow(4, 2)])
def test_accumulated_batches_are_one_larger_batch(count: int, L: int) -> None:
    accumulated = config_of(L=L, accumulate=4)
    whole = Config(
        model=accumulated.model,
        optimizer=accumulated.optimizer,
        training=TrainingConfig(seed=1, batch_size=64),
    )
    assert_same(run(whole, 1), run(accumulated, count))


def test_batches_that_cannot_be_shared_are_refused() -> None:
    devices = Devices(8)
    devices.check_batch_size(64)
    with pytest.raises(GlowError, match=r"batch_size 60 .* 8 virtual CPU devices.* are 56 or 64"):
        devices.check_batch_size(60)
    with pytest.raises(GlowError, match=r"the nearest that can are 8\."):
        devices.check_batch_size(3)
    with pytest.raises(GlowError, match=r"devices is 99; this machine has 8 CPU devices"):
        Devices(99)


def test_the_last_evaluation_batch_is_counted_exactly() -> None:
    config = config_of()
    model, _ = start(config, np.float32)
    pixels, _, _ = images_of(config, steps=2)[1]
    split = InMemory(pixels[:13], np.empty((13, 0)))
    found = []
    for count, batch_size in ((1, 13), (1, 4), (8, 8), (4, 100)):
        found.append(likelihood(model, split, Devices(count), batch_size=batch_size))
    for other in found[1:]:
        np.testing.assert_allclose(other.bits_per_dim, found[0].bits_per_dim, rtol=0, atol=1e-5)
        assert other.mean == pytest.approx(found[0].mean, abs=1e-6)


def test_results_of_images_do_not_depend_on_padding() -> None:
    devices = Devices()
    scale = devices.replicate(jnp.asarray(3.0))

    def scaled(scale: jax.Array, x: Array) -> tuple[jax.Array, ...]:
        return (jnp.asarray(scale * x),)

    for size in (1, 5, 8):
        x: Array = np.arange(size, dtype=np.float32)
        (found,) = devices.map_images(scaled, scale, x, pad_to=8)
        np.testing.assert_array_equal(found, 3 * x)


def test_a_lost_process_is_one_sentence_and_other_errors_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = RuntimeError("Gloo all-reduce failed: Connection closed by peer")
    with pytest.raises(RuntimeError, match="Gloo"), losing_processes():
        raise lost  # alone, there is nothing to lose
    monkeypatch.setattr(processes, "is_alone", lambda: False)
    sentence = r"^Process 0 has lost another .* with --resume\.$"
    with pytest.raises(GlowError, match=sentence), losing_processes():
        raise lost
    for other in (RuntimeError("out of memory"), GlowError("A connection of another kind.")):
        with pytest.raises(type(other)) as error, losing_processes():
            raise other
        assert error.value is other


def test_processes_started_with_different_flags_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "same_in_all_processes", lambda _: False)
    config = config_of()
    output = dataclasses.replace(config.output, output_dir=str(tmp_path / "run"))
    with pytest.raises(GlowError, match="started with different flags"):
        glow_jax.train(
            dataclasses.replace(config, output=output), load_dataset(DataConfig(dataset="digits"))
        )
    assert not (tmp_path / "run").exists()
