"""Files that are called or filled otherwise than one expects, and what is said of them."""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from openai_files import write_bundle
from torch_files import TINY, save, tiny_values

from glow_jax import GlowError
from glow_jax.bridge import from_openai
from glow_jax.bridge.from_torch import convert
from glow_jax.bridge.reading.openai_files import open_openai

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["GLOW.PT", "Glow.Safetensors.PTH", "A/GLOW.PT.TAR", "Last.CKPT"])
def test_endings_in_capitals(name: str, tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    archive = tmp_path / "GLOW.ZIP"
    with zipfile.ZipFile(archive, "w") as members:
        members.write(file, name)
        members.writestr("HPARAMS.JSON", '{"seed": 5}')
        members.writestr("__MACOSX/._GLOW.PT", b"x")
    _, config, _ = convert(archive)
    assert config.model == TINY
    assert config.training.seed == 5


def _in_zip(content: bytes, folder: Path) -> Path:
    path = folder / "glow.zip"
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("glow.pt", content)
    return path


def _in_tar(content: bytes, folder: Path) -> Path:
    path = folder / "glow.tar"
    with tarfile.open(path, "w") as members:
        member = tarfile.TarInfo("glow.pt")
        member.size = len(content)
        members.addfile(member, io.BytesIO(content))
    return path


def _alone(content: bytes, folder: Path) -> Path:
    path = folder / "glow.safetensors"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("put", [_alone, _in_zip, _in_tar])
def test_a_pointer_of_git_lfs(put: Callable[[bytes, Path], Path], tmp_path: Path) -> None:
    with pytest.raises(GlowError, match=r"pointer of Git LFS and not the file .* 'git lfs pull'"):
        convert(put(POINTER, tmp_path))


def test_a_pointer_of_git_lfs_beside_the_weights(tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    (tmp_path / "optimizer.pt").write_bytes(POINTER)
    with pytest.raises(GlowError, match=r"optimizer.pt is a pointer of Git LFS"):
        convert(file, optimizer=tmp_path / "optimizer.pt")
    (tmp_path / "hparams.json").write_bytes(POINTER)
    with pytest.raises(GlowError, match=r"hparams.json is a pointer of Git LFS"):
        convert(file)


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001", "pb"])
def test_a_pointer_of_git_lfs_to_a_file_of_openai(ending: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "model_best_loss.ckpt", {"model/x": np.ones(2, np.float32)})
    file = tmp_path / f"model_best_loss.ckpt.{ending}"
    file.write_bytes(POINTER)
    given = [file] if ending == "pb" else [tmp_path, file, tmp_path / "logs.tar"]
    with tarfile.open(tmp_path / "logs.tar", "w") as members:
        for path in sorted(tmp_path.glob("model*")):
            members.add(path, path.name)
    for path in given:
        with pytest.raises(GlowError, match=rf"ckpt.{ending}.* is a pointer of Git LFS"):
            from_openai.convert(path)


def test_files_of_openai_in_capitals(tmp_path: Path) -> None:
    values = {"model/x": np.ones(2, np.float32)}
    write_bundle(tmp_path / "model_best_loss.ckpt", values)
    for path in sorted(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.upper()))
    for path in (tmp_path, tmp_path / "MODEL_BEST_LOSS.CKPT.INDEX"):
        with open_openai(path) as file:
            assert np.array_equal(file.read("model/x"), values["model/x"])


def test_arrays_of_numpy_are_named_as_what_they_are(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {**tiny_values()}
    np.savez(tmp_path / "glow.npz", **arrays)
    with pytest.raises(GlowError, match=r"holds arrays of NumPy \(.npz\), which is no checkpoint"):
        convert(tmp_path / "glow.npz")


class Model:
    """Something that a pickle would have to make."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (5, "but an int."),
        ("glow", "but a str."),
        (torch.ones(3), "but a tensor of shape (3,)."),
        ({"step": torch.nn.Parameter, "x": 1}, "refused: it would have to run"),
        ({"a": {1: 2}}, "its key 'a' is a dict, not a tensor."),
    ],
)
def test_what_is_no_checkpoint_is_said_in_words_that_users_know(
    content: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(GlowError) as caught:
        convert(save(content, tmp_path / "glow.pt"))
    assert said in str(caught.value)
    assert not any(name in str(caught.value) for name in ("Stored", "Foreign", "Named", "a int"))


def test_a_refusal_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "glow.pt"
    file.write_bytes(pickle.dumps(Model()))
    with pytest.raises(GlowError, match=r"was run: save the model's state_dict\(\) instead.$"):
        convert(file)
