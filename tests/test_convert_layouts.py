"""The layouts of chaiyujin/glow-pytorch and rosinality/glow-pytorch."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from torch_files import (
    TINY,
    as_chaiyujin,
    as_tensors,
    make_rosinality,
    same,
    save,
    spoil,
    tiny_values,
)

from glow_jax import GlowError, ModelConfig
from glow_jax.bridge import mapping
from glow_jax.bridge.from_torch import convert


def test_chaiyujin_faults_are_named_as_in_the_file(tmp_path: Path) -> None:
    tiny = tiny_values()
    values = as_chaiyujin(tiny)
    values["prior_h"] = np.repeat(values["prior_h"], 5, axis=0)
    file = tmp_path / "save.pkl"
    model, config, _ = convert(save({"graph": as_tensors(values), "global_step": 3}, file))
    assert config.model == TINY
    first = "flow.layers.1.actnorm.bias"
    expected = {**tiny, first: tiny[first] + np.float32(0.5)}
    assert same(mapping.from_glow(model), expected)
    for key in ("flow.layers.1.f.0.weight", "flow.layers.3.conv.bias", "learn_top.weight"):
        for how in ("missing", "nan"):
            save({"graph": as_tensors(spoil(values, key, how))}, file)
            with pytest.raises(GlowError, match=f"Key '{key}' "):
                convert(file)


@pytest.mark.parametrize("affine", [True, False])
def test_rosinality_is_inferred_level_by_level(affine: bool, tmp_path: Path) -> None:
    values = make_rosinality(affine=affine)
    values = {f"module.{key}": value for key, value in values.items()}
    file = save(values, tmp_path / "model.pt")
    _, config, _ = convert(file, image_size=8)
    assert config.model == ModelConfig(
        K=2,
        L=2,
        hidden_channels=4,
        image_shape=(8, 8, 3),
        n_bits=5,
        flow_coupling="affine" if affine else "additive",
        plain_levels=(0,),
        padding="ones",
    )
    assert convert(file, image_size=8, n_bits=8)[1].model.n_bits == 8


def test_rosinality_asks_for_the_image_size(tmp_path: Path) -> None:
    file = save(make_rosinality(), tmp_path / "model.pt")
    with pytest.raises(GlowError, match="give --image_size"):
        convert(file)
    with pytest.raises(GlowError, match="cannot be squeezed L = 2 times"):
        convert(file, image_size=6)


@pytest.mark.parametrize("how", ["missing", "shape", "nan"])
def test_a_fault_in_any_key_of_rosinality_is_named(how: str, tmp_path: Path) -> None:
    values = make_rosinality(K=2)
    for key in values:
        if key.endswith("initialized") and how != "missing":
            continue
        file = save(spoil(values, key, how), tmp_path / "model.pt")
        with pytest.raises(GlowError, match=f"Key '{key}' "):
            convert(file, image_size=8)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("blocks.0.flows.0.actnorm.initialized", 0, "is 0: this model has never seen an image"),
        ("blocks.0.flows.1.actnorm.scale", 0, "holds a zero"),
        ("blocks.1.flows.1.invconv.u_mask", 1, "is not the constant"),
    ],
)
def test_rosinality_models_that_are_refused(
    key: str, value: float, message: str, tmp_path: Path
) -> None:
    values = make_rosinality()
    values[key] = np.full_like(values[key], value)
    with pytest.raises(GlowError, match=f"Key '{key}' {message}"):
        convert(save(values, tmp_path / "model.pt"), image_size=8)


def test_rosinality_optimizers_are_refused(tmp_path: Path) -> None:
    file = save(make_rosinality(), tmp_path / "model.pt")
    save({"state": {}, "param_groups": [{"params": []}]}, tmp_path / "optim.pt")
    with pytest.raises(GlowError, match="train the scale and not its logarithm"):
        convert(file, optimizer=tmp_path / "optim.pt", image_size=8)
