"""The commands of convert/: from PyTorch to a run folder and back, and their errors."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx

pytest.importorskip("torch")

import torch
from torch_files import DATA, exit_status, same, save, tiny_values

from glow_jax import Glow, GlowError, ModelConfig
from glow_jax.bridge import mapping
from glow_jax.bridge.from_torch import convert
from glow_jax.bridge.to_torch import Export, check_fits, to_hparams
from glow_jax.cli.from_torch import main as from_torch
from glow_jax.cli.to_torch import main as to_torch
from glow_jax.config import Config, OptimizerConfig
from glow_jax.model import with_uniform_dequantization
from glow_jax.runs import load_run, save_weights
from glow_jax.training.optimizer import make_optimizer

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_there_and_back_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = (DATA / "midway.pt", "--output", tmp_path / "run")
    assert exit_status(from_torch, monkeypatch, *arguments) == 0
    said = capsys.readouterr().out
    for part in ("y0ast/Glow-PyTorch", "K = 2, L = 2", "12 x 12 x 1", "7,568", "after 6 updates"):
        assert part in said
    for figure in ("latents", "log-determinant", "bits/dim", "encode -> decode"):
        assert figure in said
    loaded = load_run(tmp_path / "run")
    assert loaded.step == 6
    assert loaded.config.training.batch_size == 16

    exported = tmp_path / "export" / "glow.pt"
    assert exit_status(to_torch, monkeypatch, tmp_path / "run", "--output", exported) == 0
    original = torch.load(DATA / "midway.pt", weights_only=True)
    weights = torch.load(exported, weights_only=True)
    assert same(weights, original["model"])
    assert all(weights[key].dtype == original["model"][key].dtype for key in weights)
    reference = mapping.build_reference(loaded.config.model)
    reference.load_state_dict(weights, strict=True)
    state = torch.load(exported.with_name("optimizer.pt"), weights_only=True)
    torch.optim.Adamax(reference.parameters()).load_state_dict(state)
    for number, wanted in original["optimizer"]["state"].items():
        for name in wanted:
            assert torch.equal(state["state"][number][name], wanted[name])
    hparams = json.loads((exported.parent / "hparams.json").read_text())
    theirs = json.loads((DATA / "hparams.json").read_text())
    assert {**hparams, "download": theirs["download"]} == theirs

    again = convert(exported, optimizer=exported.with_name("optimizer.pt"))
    assert same(mapping.from_glow(again[0]), mapping.from_glow(loaded.model))
    assert again[1].model == loaded.config.model

    capsys.readouterr()
    assert exit_status(to_torch, monkeypatch, tmp_path / "run", "--output", exported) == 2
    assert "glow.pt exists" in capsys.readouterr().err
    assert exit_status(from_torch, monkeypatch, *arguments) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_a_run_without_optimizer_and_hparams_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path
    file = save(tiny_values(), folder / "glow.pt")
    arguments = (file, "--output", folder / "run", "--no_check")
    assert exit_status(from_torch, monkeypatch, *arguments) == 0
    (folder / "hparams.json").write_text("{}")
    arguments = (folder / "run", "--output", folder / "new.pt")
    assert exit_status(to_torch, monkeypatch, *arguments) == 2
    assert "hparams.json exists" in capsys.readouterr().err
    assert not (folder / "new.pt").exists()
    (folder / "hparams.json").unlink()
    assert exit_status(to_torch, monkeypatch, *arguments) == 0
    assert "optimizer's state is left out" in capsys.readouterr().out
    assert not (folder / "optimizer.pt").exists()
    assert exit_status(to_torch, monkeypatch, *arguments, "--average") == 2
    assert "no averaged parameters" in capsys.readouterr().err


def test_the_state_of_an_optimizer_that_pytorch_lacks_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    model, config, state = convert(DATA / "midway.pt")
    settings = dataclasses.replace(config.optimizer, optimizer="openai_adamax", schedule="cosine")
    config = dataclasses.replace(config, optimizer=settings)
    save_weights(tmp_path / "run", config, model, optimizer_state=state, step=6)
    arguments = (tmp_path / "run", "--output", tmp_path / "export" / "glow.pt")
    assert exit_status(to_torch, monkeypatch, *arguments) == 0
    said = capsys.readouterr().out
    assert "The optimizer's state is left out: PyTorch has no openai_adamax." in said
    assert "The cosine schedule is left out: Glow-PyTorch's rate stays at lr." in said
    names = sorted(path.name for path in (tmp_path / "export").iterdir())
    assert names == ["glow.pt", "hparams.json"]


def test_a_dequantisation_flow_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    model = ModelConfig(
        K=1, L=1, hidden_channels=4, image_shape=(4, 4, 1), dequantization="variational"
    )
    config = Config(model=model)
    built = jax.jit(lambda: Glow(model, rngs=nnx.Rngs(0)))()
    state = make_optimizer(config.optimizer, 1).init(nnx.state(built, nnx.Param))
    save_weights(tmp_path / "run", config, built, optimizer_state=state)
    exported = tmp_path / "glow.pt"
    assert exit_status(to_torch, monkeypatch, tmp_path / "run", "--output", exported) == 0
    assert "The dequantisation flow is left out" in capsys.readouterr().out
    weights = torch.load(exported, weights_only=True)
    reference = mapping.build_reference(model)
    reference.load_state_dict(weights, strict=True)
    wanted = mapping.from_glow(with_uniform_dequantization(built))
    assert same(weights, wanted)
    optimizer = torch.optim.Adamax(reference.parameters())
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"padding": "ones"}, "pad with ones"),
        ({"padding": "edge_bias"}, "edge bias"),
        ({"actnorm_logs_factor": 3.0}, "count 3 times"),
        ({"y_condition": True, "classifier": False}, "without a classifier"),
        ({"plain_levels": (0,)}, "some levels only"),
        ({"n_bits": 5}, "5-bit images"),
        ({"flow_permutation": "shuffle"}, "shuffle permutations"),
        ({"multi_class": True, "y_condition": True}, "multi-hot"),
    ],
)
def test_models_that_glow_pytorch_cannot_hold(settings: dict, reason: str) -> None:
    with pytest.raises(GlowError, match=f"cannot hold this model: .*{reason}"):
        check_fits(ModelConfig(**settings))


def test_their_settings_are_all_there() -> None:
    theirs = json.loads((DATA / "hparams.json").read_text())
    ours = to_hparams(Config(optimizer=OptimizerConfig(lr=1e-3)))
    assert list(ours) == list(theirs)
    assert ours["lr"] == 1e-3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("optimizer.pt", "optimizer.pt is written beside the weights"),
        ("HPARAMS.json", "HPARAMS.json is written beside the weights"),
        (".", "must name the file of the weights"),
        ("", "must name the file of the weights"),
        ("..", "must name the file of the weights"),
        ("folder", "must name the file of the weights"),
    ],
)
def test_names_that_the_weights_cannot_have(
    name: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert exit_status(to_torch, monkeypatch, tmp_path / "run", "--output", name) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("fails_at", ["write", "rename"])
def test_the_exported_files_appear_together_or_not_at_all(
    fails_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(self: Path, *arguments: object) -> object:
        if "optimizer.pt" in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, *arguments)

    names = ("glow.pt", "optimizer.pt", "hparams.json")
    export = Export(3, {tmp_path / "export" / name: b"content" for name in names}, [])
    method = "open" if fails_at == "write" else "rename"
    original = getattr(Path, method)
    monkeypatch.setattr(Path, method, full_disk)
    with pytest.raises(OSError, match=r"No space left on device: '.*optimizer.pt'"):
        export.write()
    assert not list((tmp_path / "export").iterdir())
    monkeypatch.undo()
    export.write()
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "."], "must name the run folder"),
        (["--output", ""], "must name the run folder"),
        (["--output", ".."], "must name the run folder"),
        (["--n_bits", "0"], "n_bits is 0; it must be from 1 to 8"),
        (["--image_size", "0"], "--image_size is 0"),
        (["--weights", "ema"], "--weights is ema, but"),
    ],
)
def test_flags_that_are_refused(
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = save(tiny_values(), tmp_path / "glow.pt")
    assert exit_status(from_torch, monkeypatch, file, *flags) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["glow.pt"]


def run_script(*command: object) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, from the root of the repository."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_last_line_names_no_images_that_nothing_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = shutil.copy(DATA / "midway.pt", tmp_path)
    for number, (file, dataset) in enumerate([(DATA / "midway.pt", "cifar10"), (alone, "DATA")]):
        arguments = (file, "--output", tmp_path / f"{number}", "--no_check")
        assert exit_status(from_torch, monkeypatch, *arguments) == 0
        assert capsys.readouterr().out.endswith(f"--dataset {dataset}\n")


def test_a_script_ends_with_one_line_and_status_2() -> None:
    done = run_script("convert/from_torch.py", "none.pt")
    assert done.returncode == 2
    assert done.stderr == "error: There is no file none.pt.\n"


WITHOUT_TORCH = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("script", "arguments"), [("from_torch", ["x.pt"]), ("to_torch", ["run", "--output", "x.pt"])]
)
def test_without_torch_a_script_says_what_to_install(script: str, arguments: list[str]) -> None:
    done = run_script("-c", WITHOUT_TORCH, f"convert/{script}.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: PyTorch is not installed: pip install")
    assert done.stderr.count("\n") == 1
