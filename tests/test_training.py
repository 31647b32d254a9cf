"""The optimizer, one step, and the whole loop through `train.py`, `eval.py` and `sample.py`."""

import dataclasses
import json
import math
import re
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from glow_jax.devices.parallel import DataParallel, mean_over_devices

import eval as eval_script
import glow_jax
import sample as sample_script
import train as train_script
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import Config, ModelConfig, OptimizerConfig, TrainingConfig
from glow_jax.evaluation.diagnosis import first_nonfinite_layer
from glow_jax.layers import Conv1x1LU
from glow_jax.model import put_together, take_apart
from glow_jax.runs import load_optimizer_state, load_run, whole_steps, write_config
from glow_jax.runs.lock import LOCK
from glow_jax.training.logs import Logs
from glow_jax.training.optimizer import learning_rate, make_optimizer, update_average
from glow_jax.training.step import (
    TrainState,
    loss_function,
    make_train_step,
    new_state,
    prepare_images,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

TINY = ["--preset", "digits", "--K", "1", "--L", "1", "--hidden_channels", "4", "--seed", "3"]


def small_config(**changes) -> Config:
    settings = {"K": 2, "L": 2, "hidden_channels": 8, "image_shape": (8, 8, 1), "y_classes": 4}
    model = ModelConfig(**{**settings, "n_bits": 4, **changes})
    return Config(model=model, training=TrainingConfig(seed=1, batch_size=8))


def preparation(config: Config):
    return partial(prepare_images, config=config, flips=True, shifts=True)


def small_batch(multi_hot: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
    one_hot = np.eye(4, dtype=np.float32)[random.integers(0, 4, 8)]
    several = random.integers(0, 2, (8, 4)).astype(np.float32)
    return images, several if multi_hot else one_hot, np.arange(8, dtype=np.uint32)


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


@pytest.mark.parametrize("multi_class", [False, True])
def test_conditional_loss_weighs_the_classifier(multi_class: bool) -> None:
    config = small_config(y_condition=True, multi_class=multi_class)
    model = glow_jax.Glow(config.model, rngs=nnx.Rngs(0))
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
    config = small_config()
    model = glow_jax.Glow(config.model, rngs=nnx.Rngs(0))
    parts = take_apart(model)
    optimizer = make_optimizer(config.optimizer, 1)
    step = jax.jit(make_train_step(parts.graph, optimizer, config, prepare=preparation(config)))
    state = new_state(parts, optimizer, config)
    losses = []
    for _ in range(20):
        state, metrics = step(state, *small_batch())
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0]
    assert int(state.step) == 20
    same = jax.tree.map(lambda a, b: bool((a == b).all()), parts.buffers, state.buffers)
    assert jax.tree.all(same)
    trained = put_together(parts.graph, state.params, state.buffers)
    permutation = trained.levels[0].steps.permutation
    assert isinstance(permutation, Conv1x1LU)
    diagonal = jnp.diagonal(permutation.lower[...], axis1=1, axis2=2)
    assert (diagonal < 1).all()  # masked in use, yet decayed as stored


# An update is computed in one way on CPUs, and in another on GPUs and TPUs.
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_step_moves_parameters_and_their_average(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = small_config(K=1)  # an axis of 1
    config = dataclasses.replace(config, optimizer=OptimizerConfig(ema_decay=0.9))
    parts = take_apart(glow_jax.Glow(config.model, rngs=nnx.Rngs(0)))
    optimizer, prepare = optax.sgd(0.1), preparation(config)
    step = jax.jit(make_train_step(parts.graph, optimizer, config, prepare=prepare))
    images, labels, indices = small_batch()
    after, _ = step(new_state(parts, optimizer, config), images, labels, indices)

    x = prepare(images, config.training.seed, 0, indices)

    @jax.grad
    def gradient(params: nnx.State) -> jax.Array:
        model = put_together(parts.graph, params, parts.buffers)
        return loss_function(model, x, jnp.asarray(labels), config)[0]

    moved = jax.tree.map(lambda p, g: p - 0.1 * g, parts.params, gradient(parts.params))
    average = update_average(parts.params, moved, 0.9, after.step - 1)
    for found, expected in ((after.params, moved), (after.average, average)):
        distances = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found, expected)
        assert max(jax.tree.leaves(distances)) < 1e-5
    assert optax.tree.norm(jax.tree.map(jnp.subtract, moved, parts.params)) > 1e-2


OVERFLOWING = jnp.full((2, 8), 200.0)  # logs beyond float32


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_step_skips_what_is_not_finite(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = small_config()
    config = dataclasses.replace(config, optimizer=OptimizerConfig(ema_decay=0.9))
    model = glow_jax.Glow(config.model, rngs=nnx.Rngs(0))
    model.levels[1].steps.actnorm.logs[...] = OVERFLOWING
    parts = take_apart(model)
    optimizer = make_optimizer(config.optimizer, 1)
    step = jax.jit(make_train_step(parts.graph, optimizer, config, prepare=preparation(config)))
    before = new_state(parts, optimizer, config)
    after, metrics = step(before, *small_batch())
    after, metrics = step(after, *small_batch())
    assert not np.isfinite(float(metrics.loss))
    assert (int(after.skipped), int(metrics.skipped_in_a_row)) == (2, 2)
    assert identical(changing(before), changing(after))


@pytest.mark.parametrize("count", [1, 2])
def test_devices_skip_what_is_not_finite(count: int) -> None:
    if jax.local_device_count() < count:
        pytest.skip("tests/conftest.py makes 8 virtual devices, but JAX was started before it")
    config = small_config()
    config = dataclasses.replace(config, optimizer=OptimizerConfig(ema_decay=0.9))
    model = glow_jax.Glow(config.model, rngs=nnx.Rngs(0))
    parts, optimizer = take_apart(model), make_optimizer(config.optimizer, 1)
    step = make_train_step(
        parts.graph, optimizer, config, prepare=preparation(config), mean=mean_over_devices
    )
    parallel = DataParallel(count)
    run, wishes = parallel.train_step(step), np.zeros(2, np.int32)
    state = parallel.replicate(new_state(parts, optimizer, config))
    state, _, _ = run(state, wishes, *small_batch())  # its moments are not zero any more
    state.params["levels"][1]["steps"]["actnorm"]["logs"][...] = jnp.stack([OVERFLOWING] * count)
    before = jax.tree.map(np.array, changing(state))  # whose memory is given away
    state, metrics, _ = run(state, wishes, *small_batch())
    assert not np.isfinite(parallel.read(metrics.loss))
    assert identical(before, jax.tree.map(np.array, changing(state)))


def test_diagnosis_names_the_layer() -> None:
    model = glow_jax.Glow(small_config().model, rngs=nnx.Rngs(0))
    x = jnp.zeros((2, 8, 8, 1))
    assert first_nonfinite_layer(model, x, None) is None
    model.levels[1].steps.coupling.network.conv_out.bias[...] = (
        jnp.zeros((2, 8)).at[1, 0].set(jnp.nan)
    )
    assert first_nonfinite_layer(model, x, None) == "level 2, step 2, coupling"
    assert first_nonfinite_layer(model, x + jnp.inf, None) == "the input"


def test_a_step_does_not_depend_on_the_number_of_devices() -> None:
    if jax.local_device_count() < 4:
        pytest.skip("tests/conftest.py makes 4 virtual devices, but JAX was started before it")
    config = small_config()
    model = glow_jax.Glow(config.model, rngs=nnx.Rngs(0))
    parts, optimizer = take_apart(model), make_optimizer(config.optimizer, 1)
    step = make_train_step(
        parts.graph, optimizer, config, prepare=preparation(config), mean=mean_over_devices
    )
    losses, weights = [], []
    for count in (1, 4):
        parallel = DataParallel(count)
        run = parallel.train_step(step)
        state = parallel.replicate(new_state(parts, optimizer, config))
        for _ in range(3):
            state, metrics, _ = run(state, np.zeros(2, np.int32), *small_batch())
            losses.append(float(parallel.gather(metrics.loss)))
        weights.append(jax.tree.leaves(parallel.gather(state.params)))
    np.testing.assert_allclose(losses[:3], losses[3:], atol=1e-5)
    # Adamax moves by the learning rate however small a gradient is: a sum's order can show.
    for one, four in zip(*weights, strict=True):
        np.testing.assert_allclose(one, four, atol=2 * 3 * config.optimizer.lr)


def test_per_example_results_do_not_depend_on_padding() -> None:
    parallel = DataParallel()
    run = parallel.per_example(lambda scale, x: scale * x)
    scale = parallel.replicate(jnp.asarray(3.0))
    for size in (1, 5, 8):
        x = np.arange(size, dtype=np.float32)
        np.testing.assert_array_equal(run(scale, x, pad_to=8), 3 * x)


def changing(state: TrainState) -> tuple:
    """What an update changes."""
    return state.params, state.average, state.optimizer_state


def identical(a: object, b: object) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def run_script(main, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    main()


def error_of(main, monkeypatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a script prints before it exits with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        run_script(main, monkeypatch, *arguments)
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    message = [line for line in lines if line.startswith("error: ")]
    assert len(message) == 1
    assert lines[-1] == message[0]
    return message[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as monkeypatch:
        arguments = [*TINY, "--output_dir", folder, "--epochs", 2]
        run_script(train_script.main, monkeypatch, *arguments)
    return folder


def metrics_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_leaves_everything(trained: Path) -> None:
    rows = metrics_of(trained)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["train_bits_per_dim"] < rows[0]["train_bits_per_dim"]
    assert whole_steps(trained) == [row["step"] for row in rows]
    assert (trained / "samples" / "epoch_0002.png").read_bytes().startswith(b"\x89PNG")
    assert list((trained / "tensorboard").iterdir())
    saved = json.loads((trained / "hparams.json").read_text())
    assert saved["model"]["image_shape"] == [8, 8, 1]
    assert saved["training"]["seed"] == 3


def test_eval_agrees_with_training_and_does_not_depend_on_batch_size(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script(eval_script.main, monkeypatch, trained)
    results = json.loads((trained / "results.json").read_text())
    assert results["images"] == 360
    expected = metrics_of(trained)[-1]["test_bits_per_dim"]
    assert results["bits_per_dim"] == pytest.approx(expected, abs=1e-6)
    assert sum(results["level_bits_per_dim"]) == pytest.approx(results["bits_per_dim"], abs=1e-6)
    assert max(results["reconstruction_max_abs_error"].values()) < 1e-5
    assert f"{results['bits_per_dim']:.4f}" in capsys.readouterr().out

    run_script(eval_script.main, monkeypatch, trained, "--eval_batch_size", 100, "--step", "best")
    again = json.loads((trained / "results.json").read_text())
    assert again["bits_per_dim"] == pytest.approx(expected, abs=1e-6)


def test_several_dequantizations_average(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_script(eval_script.main, monkeypatch, trained, "--dequantizations", 3)
    results = json.loads((trained / "results.json").read_text())
    single = metrics_of(trained)[-1]["test_bits_per_dim"]
    assert results["dequantizations"] == 3
    assert results["bits_per_dim"] != single
    assert results["bits_per_dim"] == pytest.approx(single, abs=0.05)


def test_samples(trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picture = tmp_path / "grid.png"
    run_script(
        sample_script.main, monkeypatch, trained, "--temperatures", "0,1", "--output", picture
    )
    from matplotlib import image

    pixels = image.imread(picture)
    height, width = pixels.shape[:2]
    # Two rows of ten 8x8 images, each with a line of one pixel around it.
    assert height / width == pytest.approx((2 * 9 + 1) / (10 * 9 + 1))
    assert pixels[..., :3].std() > 0.05


def test_resume_goes_on_as_if_never_stopped(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    run_script(train_script.main, monkeypatch, *TINY, "--output_dir", whole, "--epochs", 3)
    halves = tmp_path / "halves"
    run_script(train_script.main, monkeypatch, *TINY, "--output_dir", halves, "--epochs", 1)
    run_script(train_script.main, monkeypatch, "--output_dir", halves, "--resume", "--epochs", 3)

    def without_times(rows: list[dict]) -> list[dict]:
        machine = ("seconds", "images_per_second", "peak")
        return [{k: v for k, v in row.items() if not k.startswith(machine)} for row in rows]

    assert without_times(metrics_of(whole)) == without_times(metrics_of(halves))
    one, two = load_run(whole), load_run(halves)
    assert one.average is not None
    assert identical((one.model, one.average), (two.model, two.average))
    optimizer = make_optimizer(one.config.optimizer, 1)
    target = jax.eval_shape(optimizer.init, take_apart(one.model).params)
    first, second = (load_optimizer_state(folder, target) for folder in (whole, halves))
    assert identical(first, second)


def test_new_run_from_saved_model_and_optimizer(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    run_script(
        train_script.main,
        monkeypatch,
        *("--preset", "digits", "--saved_model", trained, "--saved_optimizer", trained),
        *("--output_dir", folder, "--epochs", 3, "--seed", 5),
    )
    rows = metrics_of(folder)
    before = metrics_of(trained)[-1]
    assert [row["step"] for row in rows] == [before["step"] + before["step"] // 2]
    assert rows[0]["train_bits_per_dim"] < before["train_bits_per_dim"]
    # The optimizer's state belongs to the parameters as trained, not to their average.
    start, source = load_run(folder, before["step"]), load_run(trained)
    assert identical(start.model, source.model)
    assert not identical(start.model, source.average)


def test_occupied_folder_is_refused_or_moved_aside(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    arguments = [*TINY, "--output_dir", folder, "--epochs", 1]
    message = error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert "--resume" in message
    assert "--fresh" in message
    run_script(train_script.main, monkeypatch, *arguments, "--fresh")
    aside = [path for path in tmp_path.iterdir() if path != folder]
    assert {path.name for path in aside[0].iterdir()} - {LOCK} == {"precious"}
    assert whole_steps(folder)


def test_training_that_diverges_stops_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    message = error_of(
        train_script.main,
        monkeypatch,
        capsys,
        *(*TINY, "--output_dir", folder, "--epochs", 2, "--lr", 1e10, "--warmup", 0),
    )
    # One good update, which throws the parameters far off, then ten that are skipped.
    assert re.search(r"stopped at step 10: 10 updates in a row", message)
    assert "level 1, step 1, actnorm" in message
    assert whole_steps(folder) == [0]
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(glow_jax.load(folder)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "digit"], ["'digit'", "digits"]),
        (["--preset", "digits", "--dataset", "digitz"], ["'digitz'", "digits"]),
        (["--preset", "digits", "--L", "4"], ["8 x 8", "L = 4", "largest L that fits is 3"]),
        (
            ["--preset", "digits", "--batch_size", "5000"],
            ["= 5000 * 1 is larger", "1293"],
        ),
        (["--preset", "digits", "--n_init_batches", "40"], ["40 * 64", "1293"]),
        (["--preset", "digits", "--n_bits", "9"], ["n_bits is 9", "1 to 8"]),
        (["--preset", "digits", "--lr", "-1"], ["lr is -1.0"]),
        (["--preset", "digits", "--saved_model", "nowhere"], ["nowhere", "no run folder"]),
        (["--preset", "digits", "--multi_class", "--y_condition"], ["--multi_class"]),
        (["--preset", "digits", "--fresh", "--resume"], ["--fresh", "--resume"]),
    ],
)
def test_bad_input_to_train(
    arguments, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = tmp_path / "run"
    message = error_of(train_script.main, monkeypatch, capsys, *arguments, "--output_dir", folder)
    for word in words:
        assert word in message
    assert not folder.exists()


def test_unknown_flag_value_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run_script(train_script.main, monkeypatch, "--flow_coupling", "quadratic")
    assert exit_info.value.code == 2


def test_resume_refuses_another_model(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output_dir", trained, "--resume", "--K", 2]
    message = error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert "K = 1" in message
    assert "2" in message


def test_bad_input_to_eval_and_sample(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert "no run folder" in error_of(eval_script.main, monkeypatch, capsys, tmp_path)
    assert "no step 7" in error_of(eval_script.main, monkeypatch, capsys, trained, "--step", 7)
    for arguments, word in (
        (["--label", 3], "not conditional"),
        (["--num", 0], "num is 0"),
        (["--temperatures", "0,warm"], "'0,warm'"),
        (["--temperature", -1], "-1"),
    ):
        assert word in error_of(sample_script.main, monkeypatch, capsys, trained, *arguments)


def test_every_flag_of_the_pytorch_code_parses() -> None:
    line = (
        "--dataset cifar10 --dataroot ./ --download --no_augment --batch_size 64 --epochs 250 "
        "--eval_batch_size 512 --saved_model= --saved_optimizer= --seed 0 --hidden_channels 512 "
        "--K 32 --L 3 --actnorm_scale 1.0 --flow_permutation invconv --flow_coupling affine "
        "--no_LU_decomposed --no_learn_top --y_condition --y_weight 0.01 --max_grad_clip 0 "
        "--max_grad_norm 0 --n_workers 6 --lr 5e-4 --warmup 5 --n_init_batches 8 --no_cuda "
        "--output_dir output/ --fresh"
    )
    config = parse_training(line.split())
    assert not config.model.LU_decomposed
    assert not config.model.learn_top
    assert not config.data.augment
    assert not config.output.cuda
    dashes = parse_training(["--no-LU-decomposed", "--hidden-channels", "7"])
    assert dashes.model.hidden_channels == 7
    assert not dashes.model.LU_decomposed
    assert parse_training([]) == Config()


def test_bits_are_those_of_the_data_set_unless_given() -> None:
    assert parse_training(["--dataset", "digits"]).model.n_bits == 4
    assert parse_training(["--dataset", "digits", "--n_bits", "3"]).model.n_bits == 3
    assert parse_training(["--dataset", "cifar10"]).model.n_bits == 8


def test_images_without_labels_train_but_not_conditionally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=images)
    arguments = ["--dataset", tmp_path / "noise.npz", "--K", 1, "--L", 1, "--hidden_channels", 2]
    arguments += ["--batch_size", 8, "--n_init_batches", 1, "--epochs", 1]
    arguments += ["--output_dir", tmp_path / "run"]
    message = error_of(train_script.main, monkeypatch, capsys, *arguments, "--y_condition")
    assert "no labels" in message
    run_script(train_script.main, monkeypatch, *arguments)
    assert len(metrics_of(tmp_path / "run")) == 1


def test_another_data_set_with_other_classes_can_be_evaluated(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=images, labels=np.arange(40) % 13)
    run_script(eval_script.main, monkeypatch, trained, "--dataset", tmp_path / "noise.npz")
    results = json.loads((trained / "results.json").read_text())
    assert results["dataset"] == "noise"
    assert results["images"] == 4
    assert math.isfinite(results["bits_per_dim"])


def test_a_refused_resume_leaves_the_run_as_it_was(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "hparams.json").read_bytes()
    arguments = ["--output_dir", trained, "--resume", "--epochs", 1]
    assert "give more --epochs" in error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert (trained / "hparams.json").read_bytes() == before


def test_resume_refuses_reversible_in_bfloat16(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "hparams.json").read_bytes()
    arguments = ["--output_dir", trained, "--resume", "--epochs", 9]
    arguments += ["--memory", "reversible", "--dtype", "bfloat16"]
    message = error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert "dtype is bfloat16; it must be float32 where memory is reversible" in message
    assert (trained / "hparams.json").read_bytes() == before


def test_a_refused_start_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(tmp_path / "empty", small_config())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "precious").write_text("mine")
    for folder, flags in ((tmp_path / "new", []), (tmp_path / "old", ["--fresh"])):
        arguments = ["--preset", "digits", "--saved_model", tmp_path / "empty", *flags]
        arguments += ["--output_dir", folder]
        assert "no checkpoint" in error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "old"]


def test_a_saved_optimizer_brings_its_settings(trained: Path) -> None:
    line = ["--preset", "digits", "--saved_model", str(trained), "--saved_optimizer", str(trained)]
    assert parse_training(line).optimizer == load_run(trained).config.optimizer
    assert parse_training([*line, "--lr", "0.5"]).optimizer.lr == 0.5


def test_a_line_of_metrics_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    with Logs(tmp_path, epochs=0) as logs:
        for step in (1, 2, 3):
            logs.scalars(epoch=step, step=step, values={"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    with Logs(tmp_path, epochs=2):
        pass
    assert [row["step"] for row in metrics_of(tmp_path)] == [1, 2]


def test_a_file_that_cannot_be_written_is_one_sentence(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    message = error_of(sample_script.main, monkeypatch, capsys, trained, "--output", tmp_path)
    assert "cannot be used" in message


def test_bits_follow_the_data_set_that_replaces_a_presets() -> None:
    assert parse_training(["--preset", "cifar10", "--dataset", "digits"]).model.n_bits == 4
    assert parse_training(["--preset", "digits"]).model.n_bits == 4


def test_optimizer_state_has_one_structure_whatever_is_clipped() -> None:
    params = {"w": jnp.ones(2)}
    states = [
        make_optimizer(OptimizerConfig(max_grad_clip=clip, max_grad_norm=norm), 1).init(params)
        for clip, norm in ((0, 0), (1, 1))
    ]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert len(optax.tree.get_all_with_path(states[0], "count")) == 2
