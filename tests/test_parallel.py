"""Data parallelism: results that do not depend on devices, and what passes between them."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from glow_jax.devices.parallel import DataParallel, mean_over_devices

from glow_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from glow_jax.data import load_dataset
from glow_jax.data.dataset import InMemory
from glow_jax.devices.compilation import fast_to_compile
from glow_jax.errors import GlowError
from glow_jax.evaluation.likelihood import make_likelihood
from glow_jax.model import Glow, Parts, initialise_actnorm, put_together, take_apart
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import (
    TrainState,
    loss_function,
    make_train_step,
    new_state,
    prepare_images,
)

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.skipif(
        jax.local_device_count() < 8,
        reason="tests/conftest.py makes 8 virtual devices, but JAX was started before it",
    ),
]

STEPS = 20
LR = 1e-3
NO_WISHES = np.zeros(2, np.int32)


def config_of(*, hidden_channels: int = 8, K: int = 2, batch_size: int = 16, **training) -> Config:
    model = ModelConfig(
        K=K, L=2, hidden_channels=hidden_channels, image_shape=(8, 8, 1), y_classes=0, n_bits=4
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


def start(config: Config, dtype: type) -> tuple[Parts, Callable[..., jax.Array]]:
    """A model initialised as training does it, and its preprocessing, in float32 or float64."""

    def prepare(images, seed, draw, indices):
        x = prepare_images(images, seed, draw, indices, config, flips=True, shifts=True)
        return x.astype(dtype)

    images, _, indices = images_of(config_of(), steps=1)[0]
    model = Glow(config.model, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        (params, rest),
    )
    model = initialise_actnorm(
        nnx.merge(graph, params, rest), prepare(images, 1, 99, indices), None
    )
    return take_apart(model), prepare


def run(config: Config, count: int, dtype: type = np.float32) -> tuple[np.ndarray, list]:
    """Losses and final parameters of 20 steps on `count` devices."""
    parts, prepare = start(config, dtype)
    optimizer = make_optimizer(config.optimizer, updates_per_epoch=1)
    step = make_train_step(parts.graph, optimizer, config, prepare=prepare, mean=mean_over_devices)
    parallel = DataParallel(count)
    run_step = parallel.train_step(step)
    state = parallel.replicate(new_state(parts, optimizer, config))
    losses = []
    for batch in images_of(config):
        state, metrics, _ = run_step(state, NO_WISHES, *batch)
        losses.append(parallel.gather(metrics.loss))
    leaves = jax.tree.leaves(parallel.gather(state.params))
    return np.array(losses), [np.asarray(leaf) for leaf in leaves]


def assert_same(one: tuple[np.ndarray, list], other: tuple[np.ndarray, list]) -> None:
    """The tolerances of two runs that differ in the order of sums.

    Adamax moves by the learning rate however small a gradient is, so that a sum's order can show.
    """
    np.testing.assert_allclose(one[0], other[0], rtol=0, atol=1e-5)
    differences = np.concatenate(
        [np.abs(a - b).ravel() for a, b in zip(one[1], other[1], strict=True)]
    )
    assert np.mean(differences <= 1e-4) >= 0.9999
    assert differences.max() <= 2 * STEPS * LR


@pytest.fixture(scope="module")
def one_device() -> tuple[np.ndarray, list]:
    return run(config_of(), 1)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_training_does_not_depend_on_the_number_of_devices(count: int, one_device) -> None:
    assert one_device[0][-1] < one_device[0][0] - 0.1  # it does learn
    assert_same(one_device, run(config_of(), count))


def test_a_step_compiled_for_devices_is_the_function_itself(one_device) -> None:
    config = config_of()
    parts, prepare = start(config, np.float32)
    optimizer = make_optimizer(config.optimizer, updates_per_epoch=1)
    step = jax.jit(make_train_step(parts.graph, optimizer, config, prepare=prepare))
    state = new_state(parts, optimizer, config)
    losses = []
    for batch in images_of(config):
        state, metrics = step(state, *batch)
        losses.append(metrics.loss)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
    assert_same(one_device, (np.array(losses), leaves))


@pytest.mark.parametrize("count", [2, 8])
def test_in_float64_devices_agree_to_the_last_digits(count: int, x64: None) -> None:
    one, several = (run(config_of(), n, np.float64) for n in (1, count))
    np.testing.assert_allclose(one[0], several[0], rtol=0, atol=1e-9)
    for a, b in zip(one[1], several[1], strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 4])
def test_accumulated_batches_are_one_larger_batch(count: int) -> None:
    accumulated = config_of(accumulate=4)
    whole = Config(
        model=accumulated.model,
        optimizer=accumulated.optimizer,
        training=TrainingConfig(seed=1, batch_size=64),
    )
    assert_same(run(whole, 1), run(accumulated, count))


def compiled(config: Config, count: int):
    """The compiled training step."""
    parts, prepare = start(config, np.float32)
    optimizer = make_optimizer(config.optimizer, updates_per_epoch=1)
    step = make_train_step(parts.graph, optimizer, config, prepare=prepare, mean=mean_over_devices)
    parallel = DataParallel(count)
    state: TrainState = parallel.replicate(new_state(parts, optimizer, config))
    program = parallel.train_step(step).compile(state, NO_WISHES, *images_of(config)[0])
    return program, parts.params


def test_a_step_gives_its_states_memory_away_and_takes_batches_of_other_sizes() -> None:
    config = config_of()
    parts, prepare = start(config, np.float32)
    optimizer = make_optimizer(config.optimizer, updates_per_epoch=1)
    step = make_train_step(parts.graph, optimizer, config, prepare=prepare, mean=mean_over_devices)
    parallel = DataParallel(2)
    shared, batch = parallel.train_step(step), images_of(config)[0]
    state: TrainState = parallel.replicate(new_state(parts, optimizer, config))
    for size in (len(batch[0]), len(batch[0]) // 2, len(batch[0])):
        before = jax.tree.leaves(state.params)
        state, _, _ = shared(state, NO_WISHES, *(part[:size] for part in batch))
        assert all(leaf.is_deleted() for leaf in before)
    assert parallel.read(state.step) == 3


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_needs_memory_for_gradients_and_not_for_copies(count: int) -> None:
    program, params = compiled(config_of(hidden_channels=256, K=8, batch_size=2), count)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    # It was 3.5 times as much with copies of the parameters and both moments, and on one device 3.4
    # times with copies of whatever has axes of 1. What is left are the gradients, on two devices
    # their sums as well; a jaxlib without the older loops keeps another array of that size.
    alone = count == 1 and "xla_cpu_use_fusion_emitters" in fast_to_compile()
    needed = program.memory_analysis().temp_size_in_bytes
    assert 0.9 * size <= needed <= (1.5 if alone else 2.5) * size


WIDTH = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}


def communication(program: str) -> dict[str, int]:
    """The bytes that each kind of collective operation of a compiled program returns."""
    found: dict[str, int] = {}
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
    for shapes, kind in re.findall(rf"^.*? = (.*?) ({kinds})(?:-start)?\(", program, re.M):
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            elements = int(np.prod([int(size) for size in sizes.split(",") if size]))
            found[kind] = found.get(kind, 0) + WIDTH[dtype] * elements
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
def test_only_gradients_and_logged_scalars_pass_between_devices(accumulate: int) -> None:
    program, params = compiled(config_of(hidden_channels=32, accumulate=accumulate), 8)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    moved = communication(program.as_text())
    assert set(moved) == {"all-reduce"}
    assert moved["all-reduce"] == pytest.approx(size, rel=0.01)


def test_the_work_is_shared_equally() -> None:
    # XLA counts a scan's body once: with one step in each level, that is all of it.
    config = config_of(K=1, hidden_channels=64, batch_size=128)
    parts, prepare = start(config, np.float32)

    def gradient(params, images, labels, indices):
        x = prepare(images, 1, 0, indices)

        def loss(params):
            return loss_function(
                put_together(parts.graph, params, parts.buffers), x, labels, config
            )[0]

        return mean_over_devices(jax.grad(loss)(params))

    flops = []
    for count in (1, 8):
        parallel = DataParallel(count)
        devices = jax.local_devices()[:count]
        shared = (parallel.share(part) for part in images_of(config, steps=1)[0])
        lowered = jax.pmap(gradient, "devices", devices=devices).lower(
            parallel.replicate(parts.params), *shared
        )
        flops.append(lowered.compile().cost_analysis()["flops"])
    assert flops[1] == pytest.approx(flops[0] / 8, rel=0.02)


def test_batches_that_cannot_be_shared_are_refused() -> None:
    parallel = DataParallel(8)
    parallel.check_batch_size(64)
    with pytest.raises(GlowError, match=r"batch_size 60 .* 8 virtual CPU devices.* are 56 or 64"):
        parallel.check_batch_size(60)
    with pytest.raises(GlowError, match=r"the nearest that can are 8\."):
        parallel.check_batch_size(3)
    with pytest.raises(GlowError, match=r"devices is 99; this machine has 8 CPU devices"):
        DataParallel(99)


def test_the_last_evaluation_batch_is_counted_exactly() -> None:
    config = config_of()
    parts, _ = start(config, np.float32)
    pixels, _, _ = images_of(config, steps=2)[1]
    split = InMemory(pixels[:13], np.empty((13, 0)))
    found = []
    for count, batch_size in ((1, 13), (1, 4), (8, 8), (4, 100)):
        parallel = DataParallel(count)
        weights = parallel.replicate((parts.params, parts.buffers))
        evaluate = make_likelihood(parallel, parts.graph, config.model, batch_size=batch_size)
        found.append(evaluate(weights, split))
    for other in found[1:]:
        np.testing.assert_allclose(other.bits_per_dim, found[0].bits_per_dim, rtol=0, atol=1e-5)
        assert other.mean == pytest.approx(found[0].mean, abs=1e-6)
