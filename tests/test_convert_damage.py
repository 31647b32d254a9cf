"""Damaged and nonsensical checkpoints: each flip is caught, and every refusal is one sentence."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from test_convert_moments import make_optimizer_state
from torch_files import (
    TINY,
    as_tensors,
    exit_status,
    make_rosinality,
    make_values,
    save,
    tiny_values,
)

from glow_jax import GlowError, ModelConfig
from glow_jax.bridge import from_torch, mapping, proof
from glow_jax.bridge.from_torch import convert
from glow_jax.bridge.layouts import Given
from glow_jax.cli.from_torch import main as from_torch_main
from glow_jax.errors import shown

PLAIN = ModelConfig(K=1, L=1, hidden_channels=4, image_shape=(4, 4, 1), LU_decomposed=False)


def test_a_flipped_weight_is_found_by_the_crc(tmp_path: Path) -> None:
    tiny = tiny_values()
    file = save(tiny, tmp_path / "glow.pt")
    content = bytearray(file.read_bytes())
    value = tiny["flow.layers.1.block.2.conv.weight"].tobytes()
    content[content.index(value) + 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(GlowError, match=r"glow/data/\d+ in .* its CRC-32 .* fetch it again"):
        convert(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_flip_in_a_compressed_archive(method: int, tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    archive = tmp_path / "glow.zip"
    with zipfile.ZipFile(archive, "w", method) as members:
        members.write(file, "a.pt")
    content = archive.read_bytes()
    for place in range(60, len(content) - 100, len(content) // 20):
        flipped = bytearray(content)
        flipped[place] ^= 16
        archive.write_bytes(flipped)
        with pytest.raises(GlowError, match=r"a.pt in .* cannot be read"):
            convert(archive)


@pytest.mark.parametrize(
    ("place", "value"), [(6, b"\x63"), (46, b"\xff\xff"), (10, b"\x63"), (8, b"\x01"), (42, b"\7")]
)
def test_a_damaged_directory(place: int, value: bytes, tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    content = bytearray(file.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + place : entry + place + len(value)] = value
    if place == 46:
        content[entry + 9] |= 8  # the name is said to be UTF-8
    file.write_bytes(content)
    with pytest.raises(GlowError) as caught:
        convert(file)
    assert str(caught.value).isprintable()


def test_random_flips_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_torch, "to_glow", lambda values, config: values)
    rng = random.Random(0)
    messages: list[str] = []
    tiny = tiny_values()
    for legacy in (False, True):
        file = save(tiny, tmp_path / "glow.pt", _use_new_zipfile_serialization=not legacy)
        content = file.read_bytes()
        for _ in range(100):
            flipped = bytearray(content)
            flipped[rng.randrange(8000 if legacy else len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(flipped)
            try:
                conversion = from_torch.convert_file(file, None, Given())
            except GlowError as error:
                messages.append(str(error))
            else:
                found = conversion.values
                # The format before the zip has no checksum.
                assert legacy or all(np.array_equal(found[key], tiny[key]) for key in tiny)
    assert len(messages) > 50
    assert all(message.isprintable() and len(message) < 1100 for message in messages)


def singular(size: int) -> np.ndarray:
    matrix = np.eye(size, dtype=np.float32)
    matrix[0] = matrix[1]
    return matrix


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        ("invconv.p", np.zeros_like, "is no permutation"),
        ("invconv.p", lambda p: np.full_like(p, 1 / len(p)), "is no permutation"),
        ("invconv.p", lambda p: singular(len(p)), "is no permutation"),
        ("invconv.sign_s", lambda s: s * 0, "neither 1 nor -1"),
        ("invconv.log_s", lambda s: s - 200, "the 1x1 is singular"),
        ("invconv.log_s", lambda s: s + 200, "the 1x1 is singular"),
        ("invconv.weight", lambda w: w * 0, "is a singular matrix"),
        ("invconv.weight", lambda w: singular(len(w)), "is a singular matrix"),
    ],
)
def test_a_1x1_convolution_without_inverse(
    ending: str, change: Callable, message: str, tmp_path: Path
) -> None:
    values = make_values(PLAIN) if ending.endswith("weight") else tiny_values()
    key = next(key for key in values if key.endswith(ending))
    file = save({**values, key: change(values[key])}, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=f"Key '{key}' .*{message}"):
        convert(file)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("blocks.0.flows.1.invconv.weight", lambda w: w * 0),
        ("blocks.0.flows.1.invconv.weight", lambda w: singular(len(w))[:, :, None, None]),
        ("blocks.1.flows.0.invconv.w_p", np.ones_like),
        ("blocks.1.flows.0.invconv.s_sign", lambda s: s * 2),
        ("blocks.1.flows.0.invconv.w_s", lambda s: s - 200),
    ],
)
def test_a_1x1_convolution_of_rosinality_without_inverse(
    key: str, change: Callable, tmp_path: Path
) -> None:
    values = make_rosinality()
    file = save({**values, key: change(values[key])}, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=f"Key '{key}' "):
        convert(file, image_size=8)


def test_the_tolerance_of_the_proof_has_a_cap() -> None:
    config = ModelConfig(K=3, L=1, hidden_channels=4, image_shape=(4, 8, 3), LU_decomposed=False)
    values = make_values(config)
    for key in [key for key in values if key.endswith("invconv.weight")]:
        left, _, right = np.linalg.svd(values[key])
        sizes = np.geomspace(1, 1e-6, len(left))
        values[key] = (left * sizes @ right).astype(np.float32)
    figures = proof.prove(mapping.to_glow(values, config), values)
    assert max(figure.tolerance for figure in figures) <= 2e-2
    assert not all(figure.holds for figure in figures)


def huge_names(state: dict) -> None:
    state["state"][0] = {"\x1b[31m\n" + "x" * 10**6: 1}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda s: s["param_groups"][0].update(params=5), "of 0 parameters"),
        (lambda s: s["param_groups"][0]["params"].__setitem__(0, [1]), "different whole numbers"),
        (lambda s: s["param_groups"][0]["params"].__setitem__(1, 0), "different whole numbers"),
        (lambda s: s["state"][4].update(step=2**40), "'step' of .* is 1099511627776; it must"),
        (lambda s: s["state"][4].update(step=torch.tensor(2.0**40)), "'step' of .* is 1099511627"),
        (lambda s: s["state"][4].update(step=10**400), "is a whole number of 1329 bits"),
        (lambda s: s["state"][4].update(step=10**5000), "is a whole number of 16610 bits"),
        (lambda s: s["state"][4].update(step=torch.ones(2)), "'step' of "),
        (lambda s: s["state"][4].update(step=float("nan")), "'step' of "),
        (lambda s: s["state"][4].update(exp_avg=torch.eye(3).to_sparse()), "lacks 'exp_avg'"),
        (lambda s: s["state"][4].update(exp_avg=torch.ones(3, device="meta")), "lacks 'exp_avg'"),
        (lambda s: s["state"][4].update(exp_avg=[torch.ones(3)]), "lacks 'exp_avg'"),
        (lambda s: s["state"][4].update(exp_avg=torch.ones(3, dtype=torch.int64)), "lacks 'exp_a"),
        (lambda s: s["state"][4].update(exp_avg=torch.ones(1).expand(2**40)), "stores 1 values"),
        (lambda s: s["param_groups"][0].update(lr=10**400), "lr is a whole number of 1329 bits"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), "lr is -1.0"),
        (lambda s: s["param_groups"][0].update(lr=float("inf")), "lr is inf"),
        (lambda s: s["state"].update({10**5000: {}}), "whole number of 16610 bits|named tensors"),
        (lambda s: s.update(state=[1]), "one group"),
        (lambda s: s["state"].update({0: 5}), "named tensors"),
        (huge_names, "neither Adamax nor Adam"),
    ],
)
def test_optimizers_that_are_nonsense(fault: Callable, message: str, tmp_path: Path) -> None:
    state: dict[str, Any] = make_optimizer_state(tiny_values(), TINY, steps=1)
    fault(state)
    content = {"model": as_tensors(tiny_values()), "optimizer": state}
    with pytest.raises(GlowError, match=message) as caught:
        convert(save(content, tmp_path / "glow.pt"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("eps", [torch.ones(3), torch.ones(1), torch.nn.Module(), 10**400, "a"])
def test_settings_of_the_optimizer_that_make_no_difference(eps: Any, tmp_path: Path) -> None:
    state = make_optimizer_state(tiny_values(), TINY, steps=1)
    state["param_groups"][0].update(eps=eps, betas=[0.9, 0.999])
    file = save({"model": as_tensors(tiny_values()), "optimizer": state}, tmp_path / "glow.pt")
    (note,) = from_torch.convert_file(file, None, Given()).notes[1:]
    assert note.startswith("Its optimizer had eps = ")
    assert note.isprintable()


def test_names_from_a_file_are_printable_and_short(tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    evil = "\x1b[31m\n\u202e" + "x" * 10**5
    archive = tmp_path / "glow.zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.write(file, "a\n\x1b[2J.pt")
        members.write(file, "x" * 60_000 + ".pt")
    contents: list[Any] = [{**tiny_values(), evil: torch.ones(1)}, {evil: 1}, {evil: torch.ones(1)}]
    for path in (archive, *(save(c, tmp_path / f"{i}.pt") for i, c in enumerate(contents))):
        with pytest.raises(GlowError) as caught:
            convert(path)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1100
    assert shown("a\ud800b\n") == r"a\ud800b\n"
    assert shown([10**5000]) == "a list"


def test_whatever_reading_raises_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")

    def fails(*_: object) -> None:
        raise RuntimeError("a\nb")

    monkeypatch.setattr("glow_jax.bridge.layouts.read_layout", fails)
    arguments = (file, "--output", tmp_path / "run")
    assert exit_status(from_torch_main, monkeypatch, *arguments) == 2
    assert "glow.pt is damaged, or holds what no checkpoint" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(from_torch, "to_glow", fails)
    with pytest.raises(RuntimeError):
        convert(file)
