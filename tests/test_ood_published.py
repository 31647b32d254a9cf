"""The published weights, CIFAR-10 and SVHN: small ones in the same formats, and `eval.py --ood`."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from photographs import write_cifar10, write_svhn
from training_runs import run_script

from glow_jax.cli import evaluate
from glow_jax.config import ModelConfig

REPOSITORY = Path(__file__).resolve().parents[1]

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="pip install -e '.[test,tfds]'"
)


def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder that the converter makes of a file as Glow-PyTorch publishes it."""
    pytest.importorskip("torch")
    import torch

    from glow_jax.bridge import mapping
    from glow_jax.cli import from_torch

    torch.manual_seed(0)
    config = ModelConfig(K=1, L=3, hidden_channels=4, image_shape=(32, 32, 3))
    weights = folder / "glow_affine_coupling.pt"
    torch.save(mapping.build_reference(config).state_dict(), weights)
    (folder / "hparams.json").write_text('{"dataset": "cifar10", "K": 1, "L": 3}')
    run_script(from_torch.main, monkeypatch, weights, "--output", folder / "published")
    return folder / "published"


def compare_with_svhn(
    run: Path,
    dataroot: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    arguments = ["--dataroot", dataroot, "--no_download", "--ood", "svhn", "--scores"]
    run_script(evaluate.main, monkeypatch, run, *arguments, "likelihood", "complexity_png", "png")
    printed, results = (
        capsys.readouterr().out,
        json.loads((run / "ood" / "svhn_cropped.json").read_text()),
    )
    assert results["in_distribution"]["dataset"] == "cifar10"
    assert (results["in_distribution"]["images"], results["out_of_distribution"]["images"]) == (
        20,
        20,
    )
    wanted = {"": 3.39, "complexity_png": 0.7837, "png": 0.0787}
    assert {row["score"]: row["value"] for row in results["on_record"]} == wanted
    for row in results["on_record"]:
        here = (
            results["scores"][row["score"]]["auroc"]["value"]
            if row["score"]
            else results["in_distribution"]["bits_per_dim"]
        )
        assert row["here"] == here
        (line,) = [
            line for line in printed.splitlines() if row["source"] in line and f"{here:.4f}" in line
        ][:1]
        assert f"{row['value']:g}" in line


@pytest.mark.slow
def test_the_published_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(REPOSITORY / "tests" / "prepared", tmp_path / "data")
    run = published(tmp_path, monkeypatch)
    compare_with_svhn(run, tmp_path / "data", monkeypatch, capsys)


@needs_tensorflow
def test_the_published_path_from_the_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy")
    data = tmp_path / "data"
    for name, write in (("cifar10", write_cifar10), ("svhn_cropped", write_svhn)):
        write(data / "downloads" / "manual")
        done = subprocess.run(
            [sys.executable, "tests/photographs.py", name, str(data)],
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    compare_with_svhn(published(tmp_path, monkeypatch), data, monkeypatch, capsys)
