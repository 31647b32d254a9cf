"""Faults in a file's keys and weights: the converter names the key and stops."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from torch_files import TINY, exit_status, make_values, save, spoil, tiny_values

from glow_jax import Glow, GlowError, ModelConfig
from glow_jax.bridge import mapping, proof
from glow_jax.bridge.from_torch import convert
from glow_jax.cli.from_torch import main as from_torch
from glow_jax.layers.convolution import Formulation
from glow_jax.model import computing


@pytest.mark.parametrize(
    "how", ["missing", "shape", "integers", "nan", pytest.param("inf", marks=pytest.mark.slow)]
)
def test_a_fault_in_any_key_is_named(how: str, tmp_path: Path) -> None:
    tiny = tiny_values()
    for key in mapping.layout_shapes(TINY):
        if key == "prior_h" and how in ("shape", "integers", "nan", "inf"):
            continue
        file = save(spoil(tiny, key, how), tmp_path / "glow.pt")
        with pytest.raises(GlowError, match=f"glow.pt: Key '{key}' ") as caught:
            convert(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["bogus", "flow.layers.1.extra", "flow.layers.9.actnorm.bias", "learn_top_fn.extra"]
)
def test_an_unknown_key_is_named(key: str, tmp_path: Path) -> None:
    tiny = tiny_values()
    file = save(spoil(tiny, key, "extra"), tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=f"[Kk]ey '{key}'"):
        convert(file)


def test_levels_must_have_the_same_number_of_steps(tmp_path: Path) -> None:
    tiny = tiny_values()
    shorter = {k: v for k, v in tiny.items() if not k.startswith("flow.layers.6.")}
    with pytest.raises(GlowError, match=r"of flow is 1 in the level of key .* and 2 in"):
        convert(save(shorter, tmp_path / "glow.pt"))
    without_level = {
        k: v for k, v in tiny.items() if not k.startswith(("flow.layers.5.", "flow.layers.6."))
    }
    with pytest.raises(
        GlowError, match=r"'flow\.layers\.5\.actnorm\.bias' is missing: a level is empty"
    ):
        convert(save(without_level, tmp_path / "glow.pt"))


def test_prior_h_is_zero(tmp_path: Path) -> None:
    tiny = tiny_values()
    file = save({**tiny, "prior_h": tiny["prior_h"] + 1}, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="'prior_h' is not zero"):
        convert(file)


def test_a_failed_proof_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    tiny_file = save(tiny_values(), tmp_path / "glow.pt")
    wrong = [proof.Figure("latents", float("nan"), 1e-4)]
    monkeypatch.setattr(proof, "prove", lambda *_: wrong)
    output = tmp_path / "run"
    assert exit_status(from_torch, monkeypatch, tiny_file, "--output", output) == 2
    captured = capsys.readouterr()
    assert "EXCEEDS" in captured.out
    assert "is not converted" in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["glow.pt"]


def test_the_proof_finds_a_wrong_weight() -> None:
    config = ModelConfig(K=1, L=1, hidden_channels=4, image_shape=(4, 8, 3))
    values = make_values(config)
    model = mapping.to_glow(values, config)
    assert all(figure.holds for figure in proof.prove(model, values))
    key = "flow.layers.1.block.4.conv.bias"
    wrong = {**values, key: values[key] + np.float32(1e-2)}
    assert not all(figure.holds for figure in proof.prove(model, wrong))


@pytest.mark.parametrize("wrong_way", ["products", "convolution"])
def test_the_proof_finds_one_wrong_way(wrong_way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(K=1, L=1, hidden_channels=4, image_shape=(4, 8, 3))
    values = make_values(config)
    key = "flow.layers.1.block.4.conv.bias"
    wrong = mapping.to_glow({**values, key: values[key] + np.float32(1e-2)}, config)

    def compute(model: Glow, formulation: Formulation) -> Glow:
        return computing(wrong if formulation == wrong_way else model, formulation=formulation)

    monkeypatch.setattr(proof, "computing", compute)
    figures = {
        figure.name: figure for figure in proof.prove(mapping.to_glow(values, config), values)
    }
    assert not figures["latents"].holds
    assert figures["encode -> decode in JAX"].holds


def test_an_output_below_a_file_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_file = save(tiny_values(), tmp_path / "glow.pt")
    assert exit_status(from_torch, monkeypatch, tiny_file, "--output", tiny_file / "run") == 2
    assert "below a file" in capsys.readouterr().err
