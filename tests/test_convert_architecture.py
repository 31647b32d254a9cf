"""The architecture that the converter infers, and its agreement with flags and settings."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from torch_files import TINY, make_values, same, save, tiny_values

from glow_jax import GlowError, ModelConfig
from glow_jax.bridge import mapping
from glow_jax.bridge.from_torch import convert
from glow_jax.bridge.layouts import common

REVERSE = ModelConfig(
    K=1, L=1, hidden_channels=4, image_shape=(4, 4, 1), flow_permutation="reverse"
)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        ModelConfig(K=1, L=3, hidden_channels=5, image_shape=(8, 8, 1), LU_decomposed=False),
        ModelConfig(K=3, L=1, hidden_channels=2, image_shape=(2, 6, 4), flow_coupling="additive"),
        ModelConfig(K=1, L=2, hidden_channels=3, image_shape=(4, 4, 3), learn_top=False),
        ModelConfig(
            K=1, L=2, hidden_channels=3, image_shape=(4, 4, 3), y_condition=True, y_classes=7
        ),
        ModelConfig(K=2, L=2, hidden_channels=3, image_shape=(4, 4, 3), plain_levels=(1,)),
    ],
    ids=lambda config: f"{config.K}-{config.L}-{config.image_shape}",
)
def test_the_architecture_is_in_keys_and_shapes(config: ModelConfig, tmp_path: Path) -> None:
    values = make_values(config)
    model, found, state = convert(save(values, tmp_path / "glow.pt"))
    assert found.model == config == model.config
    assert state is None
    assert same(mapping.from_glow(model), values)


def test_reverse_is_taken_from_the_flag_or_from_hparams(tmp_path: Path) -> None:
    file = save(make_values(REVERSE), tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="give --flow_permutation reverse"):
        convert(file)
    with pytest.raises(GlowError, match="no 1x1 convolutions"):
        convert(file, flow_permutation="invconv")
    with pytest.raises(GlowError, match="never stored, so nobody can restore"):
        convert(file, flow_permutation="shuffle")
    assert convert(file, flow_permutation="reverse")[1].model == REVERSE
    hparams = {"flow_permutation": "reverse", "actnorm_scale": 0.5, "lr": 0.25, "batch_size": 3}
    (tmp_path / "hparams.json").write_text(json.dumps(hparams))
    _, config, _ = convert(file)
    assert config.model.flow_permutation == "reverse"
    assert config.model.actnorm_scale == 0.5
    assert config.optimizer.lr == 0.25
    assert config.training.batch_size == 3
    (tmp_path / "hparams.json").write_text('{"flow_permutation": "shuffle"}')
    with pytest.raises(GlowError, match="nobody can restore"):
        convert(file)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ('{"K": 3}', "hparams.json says K = 3, but the weights have K = 2"),
        ('{"L": 3}', "L = 3, but the weights have L = 2"),
        ('{"hidden_channels": 512}', "hidden_channels = 512, but .* = 4"),
        ('{"flow_coupling": "additive"}', "flow_coupling = additive, but .* affine"),
        ('{"flow_permutation": "reverse"}', "flow_permutation = reverse, but .* invconv"),
        ('{"LU_decomposed": false}', "LU_decomposed = False, but .* True"),
        ('{"learn_top": false}', "learn_top = False, but .* True"),
        ('{"y_condition": true}', "y_condition = True, but .* False"),
        ('{"actnorm_scale": "big"}', "actnorm_scale = 'big'; it must be a number"),
        ('{"lr": "fast"}', "lr = 'fast'; it must be a number"),
        ("[1, 2", "hparams.json is not valid JSON"),
        ("[1, 2]", "hparams.json holds no settings"),
    ],
)
def test_hparams_must_agree(hparams: str, message: str, tmp_path: Path) -> None:
    tiny_file = save(tiny_values(), tmp_path / "glow.pt")
    (tmp_path / "hparams.json").write_text(hparams)
    with pytest.raises(GlowError, match=message):
        convert(tiny_file)


def test_flags_must_agree(tmp_path: Path) -> None:
    tiny_file = save(tiny_values(), tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=r"--image_size is 32, but .* 4 x 8"):
        convert(tiny_file, image_size=32)
    with pytest.raises(GlowError, match=r"--flow_permutation is reverse, but .* invconv"):
        convert(tiny_file, flow_permutation="reverse")
    assert convert(tiny_file, n_bits=5)[1].model.n_bits == 5


def test_keys_are_looked_up_and_not_searched() -> None:
    compared = 0

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, str(other))

    names = [f"model/{number}" for number in range(1000)]
    common.check_keys(dict.fromkeys(map(Key, names)), names)
    assert compared < 10_000
