"""Weights as people save them: under which key, which prefix, in what archive."""

import argparse
import gzip
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from test_convert_moments import make_optimizer_state
from torch_files import TINY, Values, as_tensors, exit_status, same, save, tiny_values

from glow_jax import GlowError
from glow_jax.bridge import mapping
from glow_jax.bridge.from_torch import convert, convert_file
from glow_jax.bridge.layouts import Given
from glow_jax.cli.from_torch import main as from_torch


def notes_of(file: Path, weights: str | None = None) -> str:
    """Convert a file, check that it has the weights of TINY, and return what is said of it."""
    conversion = convert_file(file, None, Given(), weights)
    assert same(mapping.from_glow(conversion.model), tiny_values())
    return " ".join(conversion.notes)


def prefixed(prefix: str, values: Values | None = None) -> dict[str, torch.Tensor]:
    return {prefix + key: t for key, t in as_tensors(values or tiny_values()).items()}


def other_values() -> Values:
    """Weights that differ from those of TINY."""
    tiny = tiny_values()
    return {**tiny, "flow.layers.1.actnorm.bias": tiny["flow.layers.1.actnorm.bias"] + 1}


FORMS: dict[str, tuple[Callable[[], Any], str]] = {
    "compiled": (lambda: prefixed("_orig_mod."), "without _orig_mod."),
    "parallel, compiled": (lambda: prefixed("module._orig_mod."), "without _orig_mod., module."),
    "a part compiled": (
        lambda: {k.replace("layers", "_orig_mod.layers"): v for k, v in prefixed("").items()},
        "without _orig_mod.",
    ),
    "repeated": (lambda: prefixed("module.model.module.model."), "'model.model'"),
    "mixed": (
        lambda: {("model." if len(k) % 2 else "") + k: v for k, v in prefixed("module.").items()},
        "",
    ),
    "state_dict": (lambda: {"state_dict": prefixed(""), "epoch": 1}, "'state_dict'"),
    "model_state_dict": (lambda: {"model_state_dict": prefixed(""), "loss": 1.0}, "'model_st"),
    "net": (lambda: {"net": prefixed("")}, "'net'"),
    "nested": (lambda: {"model": {"state_dict": prefixed("module.")}}, "'model.state_dict'"),
    "only ema": (lambda: {"ema": prefixed("")}, "'ema'"),
    "twice the same": (lambda: {"model": (w := prefixed("")), "ema": w}, "'model'"),
    "swa": (
        lambda: {"n_averaged": torch.tensor(1), **prefixed("module.")},
        "Its keys are read without module. Left out: 'n_averaged'.",
    ),
    "lightning": (
        lambda: {
            "state_dict": {**prefixed("net."), "loss.weight": torch.ones(1)},
            "hyper_parameters": argparse.Namespace(lr=1),
            "optimizer_states": [],
            "callbacks": {},
        },
        "'state_dict.net'. Left out: 'state_dict.loss.weight', 'hyper_parameters'.",
    ),
    "a list of averages": (
        lambda: {"model": prefixed(""), "ema": {"shadow_params": [torch.ones(2)]}},
        "Left out: 'ema'.",
    ),
    "parameters": (
        lambda: {k: torch.nn.Parameter(tensor) for k, tensor in prefixed("").items()},
        "",
    ),
    "a discriminator": (
        lambda: {"g": prefixed(""), "d": {"fc.weight": torch.ones(1)}},
        "'g'. Left out: 'd'.",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_unwrapped_and_it_is_said(form: str, tmp_path: Path) -> None:
    make, said = FORMS[form]
    assert said in notes_of(save(make(), tmp_path / "glow.ckpt"))


@pytest.mark.parametrize(
    ("content", "names", "wanted"),
    [
        (lambda a, b: {"model": prefixed("", b), "ema": prefixed("", a)}, "model, ema", "ema"),
        (
            lambda a, b: {**prefixed("online_model.", b), **prefixed("ema_model.", a)},
            "online_model, ema_model",
            "ema_model",
        ),
        (lambda a, b: {**prefixed("", a), **prefixed("module.", b)}, "[.], module", "."),
        (
            lambda a, b: {"x": {"net": prefixed("", a)}, "y": {"model": prefixed("", b)}},
            "x.net, y.model",
            "net",
        ),
    ],
)
def test_of_two_models_one_is_asked_for(
    content: Callable, names: str, wanted: str, tmp_path: Path
) -> None:
    file = save(content(tiny_values(), other_values()), tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=rf"of 2 models \({names}\): say which by --weights"):
        convert(file)
    with pytest.raises(GlowError, match="--weights is neither, but"):
        convert(file, weights="neither")
    notes_of(file, wanted)


def test_an_average_takes_no_optimizer_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = tiny_values()
    state = make_optimizer_state(tiny, TINY)
    content = {
        "model": as_tensors(tiny),
        "ema": as_tensors(other_values()),
        "optimizer_states": [state],
    }
    file = save(content, tmp_path / "last.ckpt")
    arguments = (file, "--output", tmp_path / "run", "--no_check", "--weights")
    assert exit_status(from_torch, monkeypatch, *arguments, "ema") == 0
    said = capsys.readouterr().out
    assert (
        "Left out: 'optimizer_states' (an optimizer's state, which is not of the average), 'model'."
        in said
    )
    assert convert(file, weights="model")[2] is not None
    content["optimizer_states"] = [state, state]
    save(content, file)
    with pytest.raises(GlowError, match="holds 2 optimizers' states"):
        convert(file, weights="model")


def as_safetensors(values: Values) -> bytes:
    """A file of the safetensors format."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for key, array in values.items():
        begin, data = len(data), data + array.tobytes()
        entry = {"dtype": "F32", "shape": array.shape, "data_offsets": [begin, len(data)]}
        header[key] = entry
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "glow.safetensors"
    file.write_bytes(as_safetensors(tiny_values()))
    assert notes_of(file) == ""
    halves = {key: array.astype(np.float16) for key, array in tiny_values().items()}
    content = as_safetensors(halves).replace(b'"F32"', b'"F16"')
    file.write_bytes(content)
    model = convert(file)[0]
    assert same(
        mapping.from_glow(model), {k: half.astype(np.float32) for k, half in halves.items()}
    )


@pytest.mark.parametrize("name", ["trained.pkg", "last.ckpt", "a/b/glow.pth", "glow.pth.tar"])
@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "bz2", "xz"])
def test_archives(name: str, kind: str, tmp_path: Path) -> None:
    file = save({"graph": as_tensors(tiny_values())}, tmp_path / "glow.pt")
    archive = tmp_path / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
            members.write(file, name)
            members.writestr("hparams.json", '{"seed": 5, "lr": null}')
    else:
        (tmp_path / "hparams.json").write_text('{"seed": 5, "lr": null}')
        modes: dict[str, Any] = {"tar": "w", "gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}
        with tarfile.open(archive, modes[kind]) as members:
            members.add(file, name)
            members.add(tmp_path / "hparams.json", "hparams.json")
        (tmp_path / "hparams.json").unlink()
    before = sorted(tmp_path.iterdir())
    assert notes_of(archive) == "Its weights are taken from 'graph'."
    assert convert(archive)[1].training.seed == 5
    assert sorted(tmp_path.iterdir()) == before


def test_a_compressed_file_and_an_archive_in_an_archive(tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    packed = tmp_path / "glow.pt.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert notes_of(packed) == ""
    for name in ("inner.zip", "outer.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as members:
            members.write(tmp_path / ("glow.pt" if name == "inner.zip" else "inner.zip"), "a.pt")
    with pytest.raises(GlowError, match="an archive in an archive"):
        convert(tmp_path / "outer.zip")
