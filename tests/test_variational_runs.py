"""Runs with variational dequantisation: training, resuming, evaluating, sampling, comparing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from training_runs import (
    TINY,
    assert_same_run,
    error_of,
    metrics_of,
    run_script,
    state_of,
    train,
    two_epochs,
)

import eval as eval_script
import glow_jax
import sample as sample_script
from glow_jax.config import DataConfig
from glow_jax.data import load_dataset
from glow_jax.devices import Devices
from glow_jax.evaluation.likelihood import likelihood
from glow_jax.flow import ConditionalStep
from glow_jax.model import Glow, with_uniform_dequantization

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variational") / "run"
    with pytest.MonkeyPatch.context() as patch:
        flags = ("--dequantization", "variational", "--output_dir", folder, "--epochs", 2)
        train(patch, *TINY, *flags)
    return folder


def kernel_of(model: Glow) -> np.ndarray:
    """An array of the dequantiser that starts at zero."""
    assert model.dequantizer is not None
    steps = model.dequantizer.level.steps
    assert isinstance(steps, ConditionalStep)
    return np.asarray(steps.coupling.network.conv_out.kernel[...])


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_the_dequantiser_is_trained_averaged_and_resumed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = shutil.copytree(trained, tmp_path / "resumed")
    train(monkeypatch, "--output_dir", resumed, "--resume", "--step", 20)
    assert_same_run(trained, resumed)
    before, after = kernel_of(glow_jax.load(trained, 20)), kernel_of(glow_jax.load(trained))
    model, average, _ = state_of(trained)
    for one, other in ((before, np.zeros_like(before)), (before, after)):
        assert np.any(one != other)
    np.testing.assert_array_equal(kernel_of(average), after)
    assert np.any(kernel_of(model) != after)


def test_eval_says_which_bound_it_prints(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script(eval_script.main, monkeypatch, trained, "--eval_batch_size", 100)
    assert "(standard error), variational dequantisation" in capsys.readouterr().out
    results = results_of(trained)
    assert results["dequantization"] == "variational"
    expected = metrics_of(trained)[-1]["test_bits_per_dim"]
    assert results["bits_per_dim"] == pytest.approx(expected, abs=1e-6)
    assert sum(results["level_bits_per_dim"]) == pytest.approx(results["bits_per_dim"], abs=1e-6)

    run_script(eval_script.main, monkeypatch, trained, "--dequantization", "uniform")
    assert "(standard error), uniform dequantisation" in capsys.readouterr().out
    uniform = results_of(trained)
    assert uniform["dequantization"] == "uniform"
    assert uniform["bits_per_dim"] != pytest.approx(expected, abs=1e-4)
    model = with_uniform_dequantization(glow_jax.load(trained))
    test = load_dataset(DataConfig(dataset="digits")).test
    found = likelihood(model, test, Devices(), batch_size=360)
    assert uniform["bits_per_dim"] == pytest.approx(found.mean, abs=1e-6)


def test_importance_weighted_bounds_are_printed_beside_the_average(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script(eval_script.main, monkeypatch, trained, "--importance", 12)
    said, results = capsys.readouterr().out, results_of(trained)
    bounds = results["importance"]
    assert list(bounds) == ["1", "10", "12"]
    assert results["dequantizations"] == 12
    assert bounds["1"]["bits_per_dim"] == pytest.approx(results["bits_per_dim"], abs=1e-12)
    assert bounds["1"]["standard_error"] == pytest.approx(results["standard_error"], abs=1e-12)
    assert bounds["1"]["bits_per_dim"] > bounds["10"]["bits_per_dim"]
    assert bounds["1"]["bits_per_dim"] > bounds["12"]["bits_per_dim"]
    for draws, bound in bounds.items():
        shown = f"{bound['bits_per_dim']:.4f} +- {bound['standard_error']:.4f} of {draws} draw"
        assert f"importance-weighted {shown}" in said
    run_script(eval_script.main, monkeypatch, trained, "--importance", 12)
    assert results_of(trained) == results
    averaged = ("--importance", 12, "--dequantizations", 2)
    message = error_of(eval_script.main, monkeypatch, capsys, trained, *averaged)
    assert "importance averages over its own 12 draws" in message
    message = error_of(eval_script.main, monkeypatch, capsys, trained, "--importance", -1)
    assert "importance is -1" in message
    line = ("--importance", 2, "--ood", "digits")
    assert "importance is 2; with --ood" in error_of(
        eval_script.main, monkeypatch, capsys, trained, *line
    )


def test_a_run_with_uniform_noise_has_no_other(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = two_epochs(tmp_path_factory)
    arguments = (run, "--dequantization", "variational")
    message = error_of(eval_script.main, monkeypatch, capsys, *arguments)
    assert "was trained with uniform dequantisation" in message


def test_other_data_sets_are_compared_by_either_bound(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=images)
    options = ["--ood", tmp_path / "noise.npz", "--scores", "likelihood", "gradient_norm"]
    options += ["likelihood_ratio", "--background", trained]
    means = []
    for kind in ("variational", "uniform"):
        run_script(eval_script.main, monkeypatch, trained, *options, "--dequantization", kind)
        compared = json.loads((trained / "ood" / "noise.json").read_text())
        assert compared["dequantization"] == kind
        assert all(score["not_finite"] == 0 for score in compared["scores"].values())
        # The second model is the same, with the same noise.
        assert compared["scores"]["likelihood_ratio"]["mean_in"] == pytest.approx(0, abs=1e-5)
        means.append(compared["in_distribution"]["bits_per_dim"])
    assert means[0] == pytest.approx(metrics_of(trained)[-1]["test_bits_per_dim"], abs=1e-5)
    assert means[1] != pytest.approx(means[0], abs=1e-4)


def test_samples_are_those_of_the_flow(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "samples.png"
    run_script(sample_script.main, monkeypatch, trained, "--num", 4, "--output", picture)
    assert picture.exists()
