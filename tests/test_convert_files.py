"""Files that the converter reads: every form of checkpoint, archives, and files that it refuses."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch_files import TINY, as_tensors, exit_status, same, save, tiny_values

from glow_jax import GlowError
from glow_jax.bridge import mapping
from glow_jax.bridge.from_torch import convert
from glow_jax.cli.from_torch import main as from_torch
from glow_jax.hub import load


def test_forms_of_one_file_hold_the_same_weights(tmp_path: Path) -> None:
    tiny = tiny_values()
    tensors = as_tensors(tiny)
    content = io.BytesIO()
    torch.save(tensors, content)
    archive = tmp_path / "published.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("glow/glow_affine_coupling.pt", content.getvalue())
        file.writestr("glow/hparams.json", '{"K": 2, "lr": 0.125}')
        file.writestr("__MACOSX/glow/._glow.pt", b"x")
    (tmp_path / "a").mkdir()
    files = [
        archive,
        save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False),
        save({f"module.{key}": value for key, value in tiny.items()}, tmp_path / "parallel.pt"),
        save({"model": tensors}, tmp_path / "a" / "training.pt"),
    ]
    for file in files:
        model, config, _ = convert(file)
        assert same(mapping.from_glow(model), tiny)
        assert config.optimizer.lr == (0.125 if file == archive else 5e-4)


def test_no_member_of_an_archive_is_written_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_file = save(tiny_values(), tmp_path / "glow.pt")
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = inner / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../evil.pt", tiny_file.read_bytes())
        file.writestr("/tmp/../../evil.txt", b"x")
    monkeypatch.chdir(inner)
    before = sorted(tmp_path.rglob("*"))
    assert convert(archive)[1].model == TINY
    assert sorted(tmp_path.rglob("*")) == before


def test_archives_that_are_refused(tmp_path: Path) -> None:
    tiny_file = save(tiny_values(), tmp_path / "glow.pt")

    def make(**members: bytes) -> Path:
        path = tmp_path / "archive.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name.replace("_", "."), content)
        return path

    content = tiny_file.read_bytes()
    with pytest.raises(GlowError, match=r"several files of weights: a\.pt, b\.pt"):
        convert(make(a_pt=content, b_pt=content))
    with pytest.raises(GlowError, match=r"without a \.pt"):
        convert(make(readme_txt=b"hello"))
    with pytest.raises(GlowError, match="more than 100 times its size"):
        convert(make(a_pt=bytes(10**6)))
    with pytest.raises(GlowError, match=r"a.pt in .* is not a PyTorch checkpoint"):
        convert(make(a_pt=b"no weights"))
    path = make(a_pt=content)
    data = bytearray(path.read_bytes())
    data[200:204] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(GlowError, match=r"a.pt in .* cannot be read"):
        convert(path)


def test_half_precision_is_read_as_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    tiny = tiny_values()
    halves = {key: torch.from_numpy(value).to(torch.bfloat16) for key, value in tiny.items()}
    file = save(halves, tmp_path / "glow.pt")
    output = tmp_path / "run"
    assert exit_status(from_torch, monkeypatch, file, "--output", output, "--no_check") == 0
    assert "bfloat16 values are read as float32" in capsys.readouterr().out
    weights = mapping.from_glow(load(output))
    assert same(weights, {key: value.float().numpy() for key, value in halves.items()})


def test_float64_is_rounded_unless_jax_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    tiny = tiny_values()
    doubles = {key: value.astype(np.float64) + 1e-12 for key, value in tiny.items()}
    doubles["prior_h"][...] = 0
    file = save(doubles, tmp_path / "glow.pt")
    with jax.enable_x64(True):
        assert same(mapping.from_glow(convert(file)[0]), doubles)
    assert (
        exit_status(from_torch, monkeypatch, file, "--output", tmp_path / "run", "--no_check") == 0
    )
    assert "rounded to float32" in capsys.readouterr().out


class Malice:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    trace = tmp_path / "trace"
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps({"flow.layers.1.actnorm.bias": Malice(trace)}))
    for file in (plain, save(Malice(trace), tmp_path / "zip.pt")):
        output = tmp_path / "run"
        assert exit_status(from_torch, monkeypatch, file, "--output", output) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "refused" in said or "not a PyTorch checkpoint" in said
        assert not trace.exists()
        assert not output.exists()
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("legacy", [True, False])
def test_truncated_files(legacy: bool, tmp_path: Path) -> None:
    tiny = tiny_values()
    file = save(tiny, tmp_path / "glow.pt", _use_new_zipfile_serialization=not legacy)
    content = file.read_bytes()
    for length in (1, 100, len(content) // 2, len(content) - 10):
        file.write_bytes(content[:length])
        with pytest.raises(
            GlowError, match=r"glow.pt is not a PyTorch checkpoint, or it is damaged"
        ):
            convert(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is not a PyTorch checkpoint"),
        ([1, 2], "holds no state dict, but a list"),
        ({}, "holds no state dict, but nothing"),
        ({"epoch": 3}, "key 'epoch' is an int, not a tensor"),
        ({"fc.weight": torch.zeros(2)}, "not the weights of a Glow .* first key is 'fc.weight'"),
        ({"state": {}, "param_groups": []}, "an optimizer's state and no weights"),
    ],
)
def test_files_that_are_no_checkpoint(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "glow.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        save(content, file)
    with pytest.raises(GlowError, match=message):
        convert(file)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(GlowError, match="There is no file"):
        convert(tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="is no file"):
        convert(tmp_path)
