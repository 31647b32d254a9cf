"""A whole run through `train.py`, `eval.py` and `sample.py`, and from Python."""

import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import TINY, error_of, metrics_of, run_script, train, two_epochs

import eval as eval_script
import glow_jax
import sample as sample_script
import train as train_script
from glow_jax.cli import to_hub as to_hub_script
from glow_jax.config import Config, DataConfig, ModelConfig, OutputConfig, TrainingConfig
from glow_jax.data import Dataset, from_arrays, register
from glow_jax.runs import load_run, save_weights, whole_steps
from glow_jax.runs.lock import LOCK
from glow_jax.training.logs import Logs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_epochs(tmp_path_factory)


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
    assert (results["dtype"], results["precision"]) == ("float32", "highest")
    expected = metrics_of(trained)[-1]["test_bits_per_dim"]
    assert results["bits_per_dim"] == pytest.approx(expected, abs=1e-6)
    assert sum(results["level_bits_per_dim"]) == pytest.approx(results["bits_per_dim"], abs=1e-6)
    assert max(results["reconstruction_max_abs_error"].values()) < 1e-5
    assert f"{results['bits_per_dim']:.4f}" in capsys.readouterr().out

    options = ["--eval_batch_size", 100, "--step", "best", "--precision", "high"]
    run_script(eval_script.main, monkeypatch, trained, *options)
    again = json.loads((trained / "results.json").read_text())
    assert again["precision"] == "high"  # on a CPU the same numbers
    assert again["bits_per_dim"] == pytest.approx(expected, abs=1e-6)


def test_images_that_do_not_come_back_are_counted(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A coupling whose scale is 0 in float32 loses half of its channels."""
    run_script(eval_script.main, monkeypatch, trained)
    assert "not given back" not in capsys.readouterr().out
    run = load_run(trained)
    bias = run.model.levels[0].steps.coupling.network.conv_out.bias
    bias[...] = bias[...].at[..., 1::2].set(-60)
    save_weights(tmp_path / "run", run.config, run.model)
    run_script(eval_script.main, monkeypatch, tmp_path / "run")
    assert "\n360 of 360 images not given back: a value is off" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["reconstruction_images_off"] == 360
    run_script(to_hub_script.main, monkeypatch, tmp_path / "run", "--output", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| encode -> decode | 360 of 360 images not given back: a value is off" in card


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


@pytest.fixture
def mine() -> Dataset:
    """A user's own images: dark ones, and noise."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 4, 4), dtype=np.uint8) // 4
    return from_arrays("mine", images, np.arange(60) % 3)


@pytest.mark.slow
def test_a_run_from_python_needs_no_command_line(
    mine: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    config = Config(
        model=ModelConfig(K=1, L=1, hidden_channels=2),
        data=DataConfig(dataset="mine"),
        training=TrainingConfig(batch_size=8, n_init_batches=1, epochs=1, seed=1),
        output=OutputConfig(output_dir=str(folder)),
    )
    model = glow_jax.train(config, mine)
    assert isinstance(model, glow_jax.Glow)
    assert model.config.image_shape == (4, 4, 1)
    assert model.config.y_classes == 3
    loaded = glow_jax.load(folder)
    for one, other in zip(jax.tree.leaves(model), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
    x = mine.test[np.arange(6)].images / np.float32(256) - 0.5
    np.testing.assert_allclose(model.log_prob(x), loaded.log_prob(x), rtol=1e-6)

    capsys.readouterr()
    found = glow_jax.evaluate(folder, mine)
    assert (found.dataset, found.dequantizations, found.run.step) == ("mine", 1, 6)
    assert found.likelihood.bits_per_dim.shape == (6,)
    expected = metrics_of(folder)[-1]["test_bits_per_dim"]
    assert found.likelihood.mean == pytest.approx(expected, abs=1e-6)
    assert max(found.reconstruction) < 1e-5
    assert not (folder / "results.json").exists()  # only the command line writes and prints
    assert capsys.readouterr().out == ""

    # Where the data set has a name, a folder says itself what it is to be evaluated on.
    register("mine", lambda _: mine)
    by_name = glow_jax.evaluate(folder)
    assert by_name.likelihood.mean == found.likelihood.mean

    with pytest.raises(ValueError, match="is not empty: continue that run"):
        glow_jax.train(config, mine)
    other = from_arrays("other", np.zeros((20, 6, 6), np.uint8))
    with pytest.raises(glow_jax.GlowError, match=r"takes images of \(4, 4, 1\).*other are"):
        glow_jax.evaluate(folder, other)


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


def test_a_file_that_cannot_be_written_is_one_sentence(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    message = error_of(sample_script.main, monkeypatch, capsys, trained, "--output", tmp_path)
    assert "cannot be used" in message


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
    train(monkeypatch, *arguments, "--fresh")
    aside = [path for path in tmp_path.iterdir() if path != folder]
    assert {path.name for path in aside[0].iterdir()} - {LOCK} == {"precious"}
    assert whole_steps(folder)


@pytest.mark.slow
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


@pytest.mark.slow
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
    train(monkeypatch, *arguments)
    assert len(metrics_of(tmp_path / "run")) == 1


def test_a_line_of_metrics_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    with Logs(tmp_path, epochs=0) as logs:
        for step in (1, 2, 3):
            logs.scalars(epoch=step, step=step, values={"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    with Logs(tmp_path, epochs=2):
        pass
    assert [row["step"] for row in metrics_of(tmp_path)] == [1, 2]
