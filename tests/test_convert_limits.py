"""Files that ask for more than they may: memory, sizes and numbers of a checkpoint are bounded."""

import bz2
import gzip
import io
import json
import lzma
import os
import resource
import struct
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch_files import as_tensors, exit_status, make_rosinality, save, tiny_values

from glow_jax import GlowError
from glow_jax.bridge.from_torch import convert
from glow_jax.bridge.reading.unpickle import read_pickle
from glow_jax.cli.from_torch import main as from_torch

BIAS = "flow.layers.1.actnorm.bias"
KERNEL = "flow.layers.1.block.2.conv.weight"


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """A test fails if the process grows by half a gigabyte, or takes long."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert time.monotonic() - start < 30


def repack(file: Path, method: int, **changed: bytes) -> Path:
    """A checkpoint of torch.save whose records are compressed, with some of them changed."""
    path = file.with_name(f"repacked_{method}.pt")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name.rpartition("/")[2], old.read(name)))
    return path


@pytest.mark.parametrize(
    "method",
    [
        zipfile.ZIP_DEFLATED,
        pytest.param(zipfile.ZIP_BZIP2, marks=pytest.mark.slow),
        pytest.param(zipfile.ZIP_LZMA, marks=pytest.mark.slow),
    ],
)
def test_a_compressed_checkpoint_is_read_and_a_bomb_is_not(method: int, tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    assert convert(repack(file, method))[1] == convert(file)[1]
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", method) as members, members.open("a.pt", "w") as member:
        for _ in range(200):
            member.write(bytes(10**6))
    for content in (archive.read_bytes(), understate(archive.read_bytes(), 200 * 10**6)):
        archive.write_bytes(content)
        with pytest.raises(GlowError, match="more than 100 times its size"):
            convert(archive)
    with pytest.raises(GlowError, match="more than 100 times its size"):
        convert(repack(file, method, **{"3": bytes(50 * 10**6)}))


def understate(archive: bytes, size: int) -> bytes:
    """A zip that declares a member of a thousand bytes instead of its true size."""
    return archive.replace(struct.pack("<L", size), struct.pack("<L", 1000))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_tar_that_is_a_bomb(pack: Any, tmp_path: Path) -> None:
    file = tmp_path / "bomb.tar.gz"
    file.write_bytes(pack(bytes(100 * 10**6)))
    with pytest.raises(GlowError, match="more than 100 times its size"):
        convert(file)


def test_a_sparse_tar_that_declares_a_terabyte(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.pt")
    member.size = 512
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    member.pax_headers |= {"GNU.sparse.realsize": str(10**12), "GNU.sparse.name": "a.pt"}
    file = tmp_path / "sparse.tar"
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(b"1\n0\n512\n".ljust(512, b"\0")))
    with pytest.raises(GlowError, match=r"needs more than 0.05 GB of memory"):
        convert(file, memory=50 * 10**6)


def test_the_limit_is_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    arguments = (file, "--output", tmp_path / "run", "--no_check", "--memory_limit")
    assert exit_status(from_torch, monkeypatch, *arguments, "0.00001") == 2
    assert "raise the limit by --memory_limit" in capsys.readouterr().err
    assert exit_status(from_torch, monkeypatch, *arguments, "0") == 2
    assert "--memory_limit is 0" in capsys.readouterr().err
    assert exit_status(from_torch, monkeypatch, *arguments, "1") == 0


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        (KERNEL, torch.zeros(1).expand(2**20, 2**12, 1, 1), "stores 1 values for it"),
        (KERNEL, torch.zeros(4, 4, 1, 1).expand(4, 4, 1, 2**40), "stores 16 values for it"),
        ("prior_h", torch.zeros(1).expand(1, 48, 2**14, 2**14), "stores 1 values for it"),
        (KERNEL, torch.zeros([1] * 70), "70 axes"),
        (KERNEL, torch.zeros(0, 2**40), "has no values"),
        (KERNEL, torch.zeros(3, device="meta"), "'.*' is missing"),
        (KERNEL, torch.eye(4).to_sparse(), "'.*' is missing"),
        (KERNEL, torch.zeros(4, dtype=torch.complex64), "a kind that weights never have"),
    ],
    ids=str,
)
def test_tensors_that_no_weights_are(
    key: str, tensor: torch.Tensor, message: str, tmp_path: Path
) -> None:
    file = save({**tiny_values(), key: tensor}, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=message):
        convert(file)


def test_a_storage_that_is_shorter_than_its_tensors(tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="its file has 8 bytes and declares"):
        convert(repack(file, zipfile.ZIP_STORED, **{"3": bytes(8)}))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("flow.layers.{}.actnorm.bias", "steps of flow; at most 2048"),
        ("flow.layers.{}.conv.logs", "levels; at most 16"),
        ("blocks.{}.flows.0.actnorm.loc", "levels; at most 16"),
        ("blocks.0.flows.{}.actnorm.loc", "steps of flow; at most 2048"),
    ],
)
def test_too_many_layers(pattern: str, message: str, tmp_path: Path) -> None:
    shared = torch.zeros(1, 12, 1, 1)
    values = {pattern.format(number): shared for number in range(20_000)}
    values |= dict.fromkeys(("flow.layers.1.block.0", "blocks.0.flows.0.x", "prior_h"), shared)
    if pattern.startswith("flow"):
        del values["blocks.0.flows.0.x"]
    else:
        del values["flow.layers.1.block.0"]
    file = save(values, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=message):
        convert(file, image_size=8)


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 12])
def test_a_number_that_no_layer_has(number: str, tmp_path: Path) -> None:
    for values, key in (
        (tiny_values(), f"flow.layers.{number}.actnorm.bias"),
        (make_rosinality(), f"blocks.{number}.flows.0.actnorm.loc"),
    ):
        file = save({**values, key: np.zeros(1)}, tmp_path / "glow.pt")
        with pytest.raises(GlowError, match="a number that no model's layers reach") as caught:
            convert(file, image_size=8)
        assert len(str(caught.value)) < 500


def test_an_image_size_that_no_memory_holds(tmp_path: Path) -> None:
    file = save(make_rosinality(), tmp_path / "model.pt")
    with pytest.raises(GlowError, match=r"65536 x 65536 would take .* limit of 2.12 GB"):
        convert(file, image_size=65536)
    with pytest.raises(GlowError, match="image height of 1000000000"):
        convert(file, image_size=10**9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 10**5, "is not valid JSON"),
        ('{"a":' * 30 + "1" + "}" * 30, "nested more than 20 deep"),
        ('{"K": ' + "9" * 5000 + "}", "is not valid JSON"),
        ('{"L": ' + "9" * 400 + "}", "L = a whole number of 1329 bits, but the weights have L = 2"),
        ('{"lr": ' + "9" * 400 + "}", "lr = a whole number of 1329 bits; it must be a number"),
        ('{"lr": 1e200}', "lr = 1e[+]200; it must be a number of at most"),
        ('{"lr": NaN}', "lr = nan; it must be"),
        ('{"actnorm_scale": ' + "9" * 400 + "}", "actnorm_scale = a whole number of 1329 bits"),
        ('{"actnorm_scale": -1}', "actnorm_scale = -1; it must be a number above 0"),
        ('{"dataset": "\\ud800"}', r"dataset = \\ud800; it must be printable text"),
        ('{"dataset": "a\\u001b[31m\\n"}', r"dataset = a\\x1b\[31m\\n; it must be printable"),
        ('{"dataset": [[[]]]}', "dataset = .*; it must be a number, text"),
        ('{"a": "' + "b" * 2**20 + '"}', "has more than 1048576 bytes"),
    ],
    ids=range(13),
)
def test_settings_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    (tmp_path / "hparams.json").write_text(content)
    with pytest.raises(GlowError, match=message) as caught:
        convert(file)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_huge_settings_are_refused_before_they_are_read(tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    with (tmp_path / "hparams.json").open("wb") as settings:
        settings.truncate(6 * 10**9)
    with pytest.raises(GlowError, match="has more than 1048576 bytes"):
        convert(file)
    archive = tmp_path / "glow.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.write(file, "glow.pt")
        members.writestr("hparams.json", bytes(2 * 10**6))
    with pytest.raises(GlowError, match="2000000 bytes: it is no list of settings"):
        convert(archive)


def test_nulls_in_settings_are_as_good_as_nothing(tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    (tmp_path / "hparams.json").write_text(json.dumps({"K": None, "lr": None, "seed": 7}))
    config = convert(file)[1]
    assert (config.optimizer.lr, config.training.seed) == (5e-4, 7)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    file = save(tiny_values(), tmp_path / "glow.pt")
    for path in (tmp_path / "pipe.pt", Path("/dev/zero"), tmp_path):
        with pytest.raises(GlowError, match="is no file"):
            convert(path)
        with pytest.raises(GlowError, match="is no file"):
            convert(file, optimizer=path)
    os.mkfifo(tmp_path / "hparams.json")
    convert(file)


def test_a_safetensors_header_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "glow.safetensors"
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    for header, message in [
        ({BIAS: entry | {"data_offsets": [0, 10**9]}}, "lies at"),
        ({BIAS: entry | {"shape": [10**9, 10**9]}}, "is damaged"),
        ({BIAS: entry | {"shape": [-1]}}, "has shape"),
        ({BIAS: entry | {"dtype": "F8_E4M3"}}, "a kind that weights never have"),
        ({BIAS: 5}, "damaged safetensors"),
    ]:
        content = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(content)) + content + bytes(8))
        with pytest.raises(GlowError, match=message):
            convert(file)
    file.write_bytes(struct.pack("<Q", 2**32 - 1) + b"{" + bytes(100))
    with pytest.raises(GlowError):
        convert(file)


def test_a_pickle_of_endless_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glow_jax.bridge.reading.unpickle._MOST_INSTRUCTIONS", 1000)
    file = save(as_tensors(tiny_values()), tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="more than 1,000 instructions"):
        convert(file)


def test_sparse_files_of_gigabytes(tmp_path: Path) -> None:
    legacy = tmp_path / "glow.pt"
    with legacy.open("wb") as file:
        file.write(b"\x80\x02\x8e" + struct.pack("<Q", 5 * 10**9))  # bytes of that length
        file.truncate(6 * 10**9)
    with pytest.raises(GlowError, match=r"needs more than 2.12 GB"):
        convert(legacy)
    archive = tmp_path / "glow.zip"
    with archive.open("wb") as file:
        file.write(b"PK\3\4")
        file.seek(4 * 10**9)
        file.write(b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, 3 * 10**9, 5 * 10**8, 0))
    with pytest.raises(GlowError, match="its directory is to have 3000000000 bytes"):
        convert(archive)


def test_many_models_and_prefixes(tmp_path: Path) -> None:
    key, tensor = "flow.layers.1.block.0.x", torch.zeros(1)
    file = save({f"a{n}": {key: tensor} for n in range(10_000)}, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="weights of 10000 models"):
        convert(file)
    save({f"a{n}.{key}": tensor for n in range(10_000)}, file)
    with pytest.raises(GlowError, match="10000 different prefixes"):
        convert(file)


@pytest.mark.parametrize("instruction", [b"X\xff\xff\xff\xfe", b"\x8d" + b"\0\0\0\0\0\1\0\0"])
def test_a_text_in_a_pickle_takes_no_more_memory_than_it_has(instruction: bytes) -> None:
    file = mock.Mock(wraps=io.BytesIO(b"\x80\2" + instruction + b"a."))
    with pytest.raises(ValueError, match="but only 2 remain"):
        read_pickle(file, lambda reference: reference)
    assert max(call.args[0] for call in file.read.call_args_list) < 100
