"""The converters: every form of file, what they infer, what they refuse, and the way back."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

pytest.importorskip("torch")

import torch

from glow_jax import GlowError, ModelConfig
from glow_jax.bridge import mapping, moments, proof, to_torch
from glow_jax.bridge.from_torch import convert
from glow_jax.cli import from_torch
from glow_jax.cli import to_torch as to_torch_command
from glow_jax.config import Config, OptimizerConfig
from glow_jax.runs.checkpoint import load, load_run

DATA = Path(__file__).parent / "data" / "additive_lu_grey"
TINY = ModelConfig(K=2, L=2, hidden_channels=4, image_shape=(4, 8, 3))
REVERSE = ModelConfig(
    K=1, L=1, hidden_channels=4, image_shape=(4, 4, 1), flow_permutation="reverse"
)


def make_values(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights in the published layout."""
    torch.manual_seed(seed)
    model = mapping.build_reference(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return {key: tensor.numpy() for key, tensor in model.state_dict().items()}


def save(values: Any, path: Path, **how: Any) -> Path:
    if isinstance(values, dict):
        values = {
            k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in values.items()
        }
    torch.save(values, path, **how)
    return path


def run(script: Any, monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    """The exit status of a script run in this process."""
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    try:
        script.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return list(a) == list(b) and all(
        np.array_equal(np.asarray(a[key]), np.asarray(b[key])) for key in a
    )


@pytest.fixture(scope="module")
def tiny() -> dict[str, np.ndarray]:
    return make_values(TINY)


@pytest.fixture
def tiny_file(tiny: dict[str, np.ndarray], tmp_path: Path) -> Path:
    return save(tiny, tmp_path / "glow.pt")


# What is inferred


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
    with pytest.raises(GlowError, match="never stored: nobody can restore"):
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
        ('{"lr": "fast"}', "lr is 'fast'; it must be float"),
        ("[1, 2", "hparams.json is not valid JSON"),
        ("[1, 2]", "hparams.json holds no settings"),
    ],
)
def test_hparams_must_agree(hparams: str, message: str, tiny_file: Path) -> None:
    (tiny_file.parent / "hparams.json").write_text(hparams)
    with pytest.raises(GlowError, match=message):
        convert(tiny_file)


def test_flags_must_agree(tiny_file: Path) -> None:
    with pytest.raises(GlowError, match=r"--image_size is 32, but .* 4 x 8"):
        convert(tiny_file, image_size=32)
    with pytest.raises(GlowError, match=r"--flow_permutation is reverse, but .* invconv"):
        convert(tiny_file, flow_permutation="reverse")
    assert convert(tiny_file, n_bits=5)[1].model.n_bits == 5


# Forms of files


def test_forms_of_one_file_hold_the_same_weights(tiny: dict, tmp_path: Path) -> None:
    tensors = {key: torch.from_numpy(value) for key, value in tiny.items()}
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
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_archives_that_are_refused(tiny_file: Path, tmp_path: Path) -> None:
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
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    halves = {key: torch.from_numpy(value).to(torch.bfloat16) for key, value in tiny.items()}
    file = save(halves, tmp_path / "glow.pt")
    output = tmp_path / "run"
    assert run(from_torch, monkeypatch, file, "--output", output, "--no_check") == 0
    assert "bfloat16 values are read as float32" in capsys.readouterr().out
    weights = mapping.from_glow(load(output))
    assert same(weights, {key: value.float().numpy() for key, value in halves.items()})


def test_float64_is_rounded_unless_jax_has_it(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    doubles = {key: value.astype(np.float64) + 1e-12 for key, value in tiny.items()}
    doubles["prior_h"][...] = 0
    file = save(doubles, tmp_path / "glow.pt")
    with jax.enable_x64(True):
        assert same(mapping.from_glow(convert(file)[0]), doubles)
    assert run(from_torch, monkeypatch, file, "--output", tmp_path / "run", "--no_check") == 0
    assert "rounded to float32" in capsys.readouterr().out


# Faults


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
        assert run(from_torch, monkeypatch, file, "--output", output) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "refused" in said or "not a PyTorch checkpoint" in said
        assert not trace.exists()
        assert not output.exists()
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("legacy", [True, False])
def test_truncated_files(legacy: bool, tiny: dict, tmp_path: Path) -> None:
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
        ({"epoch": 3}, "key 'epoch' is a int, not a tensor"),
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


def spoil(values: dict, key: str, how: str) -> dict:
    values = dict(values)
    if how == "missing":
        del values[key]
    elif how == "extra":
        values[key] = np.zeros(3, np.float32)
    elif how == "shape":
        values[key] = np.repeat(values[key], 2, axis=-1)
    elif how == "integers":
        values[key] = values[key].astype(np.int64)
    else:
        values[key] = np.full_like(values[key], float(how))
    return values


ORDINARY = ("flow.layers.1.actnorm.bias", "flow.layers.5.block.4.conv.weight")
EVERY_KEY = sorted(mapping.layout_shapes(TINY))


@pytest.mark.parametrize("how", ["missing", "shape", "integers", "nan", "inf"])
def test_a_fault_in_any_key_is_named(how: str, tiny: dict, tmp_path: Path) -> None:
    for key in EVERY_KEY:
        if key == "prior_h" and how in ("shape", "integers", "nan", "inf"):
            continue
        file = save(spoil(tiny, key, how), tmp_path / "glow.pt")
        with pytest.raises(GlowError, match=f"glow.pt: Key '{key}' ") as caught:
            convert(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["bogus", "flow.layers.1.extra", "flow.layers.9.actnorm.bias", "learn_top_fn.extra"]
)
def test_an_unknown_key_is_named(key: str, tiny: dict, tmp_path: Path) -> None:
    file = save(spoil(tiny, key, "extra"), tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=f"[Kk]ey '{key}'"):
        convert(file)


def test_levels_must_have_the_same_number_of_steps(tiny: dict, tmp_path: Path) -> None:
    shorter = {k: v for k, v in tiny.items() if not k.startswith("flow.layers.6.")}
    with pytest.raises(GlowError, match="has 1 steps of flow and the first level 2"):
        convert(save(shorter, tmp_path / "glow.pt"))
    without_level = {
        k: v for k, v in tiny.items() if not k.startswith(("flow.layers.5.", "flow.layers.6."))
    }
    with pytest.raises(
        GlowError, match=r"'flow\.layers\.5\.actnorm\.bias' is missing: a level is empty"
    ):
        convert(save(without_level, tmp_path / "glow.pt"))


def test_prior_h_is_zero(tiny: dict, tmp_path: Path) -> None:
    file = save({**tiny, "prior_h": tiny["prior_h"] + 1}, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="'prior_h' is not zero"):
        convert(file)


def test_a_failed_proof_writes_nothing(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    wrong = [proof.Figure("latents", float("nan"), 1e-4)]
    monkeypatch.setattr(proof, "prove", lambda *_: wrong)
    output = tiny_file.parent / "run"
    assert run(from_torch, monkeypatch, tiny_file, "--output", output) == 2
    captured = capsys.readouterr()
    assert "EXCEEDS" in captured.out
    assert "is not converted" in captured.err
    assert [path.name for path in tiny_file.parent.iterdir()] == ["glow.pt"]


def test_the_proof_finds_a_wrong_weight(tiny: dict) -> None:
    model = mapping.to_glow(tiny, TINY)
    assert all(figure.holds for figure in proof.prove(model, tiny))
    key = "flow.layers.6.block.4.conv.bias"
    wrong = {**tiny, key: tiny[key] + np.float32(1e-2)}
    assert not all(figure.holds for figure in proof.prove(model, wrong))


# Other layouts


def as_chaiyujin(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The published layout under chaiyujin's names."""
    renamed = {}
    for key, value in values.items():
        key = key.replace(".block.", ".f.").replace("learn_top_fn.", "learn_top.")
        key = key.replace(".conv.weight", ".weight").replace("invconv.lower", "invconv.l")
        key = key.replace(".f.4.conv.bias", ".f.4.bias").replace("conv.conv.", "conv.")
        key = key.replace("learn_top.conv.", "learn_top.").replace("invconv.upper", "invconv.u")
        parts = key.split(".")
        if parts[-2:] == ["3", "weight"]:
            key = "flow.layers.3.conv.weight"
        renamed[key] = value
    return renamed


def test_chaiyujin_faults_are_named_as_in_the_file(tiny: dict, tmp_path: Path) -> None:
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


def as_tensors(values: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in values.items()}


def make_rosinality(K: int = 2, L: int = 2, hidden: int = 4, affine: bool = True) -> dict:
    """Random weights under rosinality's keys, plain but for the last level, scales of any sign."""
    rng = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {}

    def draw(*shape: int) -> np.ndarray:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)

    for b in range(L):
        C = 12 * 2**b
        for k in range(K):
            at = f"blocks.{b}.flows.{k}."
            values[at + "actnorm.loc"] = draw(1, C, 1, 1)
            signs = rng.choice([-1, 1], (1, C, 1, 1)).astype(np.float32)
            values[at + "actnorm.scale"] = signs * np.exp(draw(1, C, 1, 1))
            values[at + "actnorm.initialized"] = np.array(1, np.uint8)
            if b < L - 1:
                weight, _ = np.linalg.qr(rng.standard_normal((C, C)))
                values[at + "invconv.weight"] = weight[:, :, None, None].astype(np.float32)
            else:
                ones = np.ones((C, C), np.float32)
                values |= {
                    at + "invconv.w_l": draw(C, C),
                    at + "invconv.w_s": draw(C),
                    at + "invconv.w_u": draw(C, C),
                    at + "invconv.w_p": np.eye(C, dtype=np.float32)[rng.permutation(C)],
                    at + "invconv.u_mask": np.triu(ones, 1),
                    at + "invconv.l_mask": np.tril(ones, -1),
                    at + "invconv.s_sign": np.sign(draw(C)),
                    at + "invconv.l_eye": np.eye(C, dtype=np.float32),
                }
            outputs = C if affine else C // 2
            net = at + "coupling.net."
            values |= {
                net + "0.weight": draw(hidden, C // 2, 3, 3),
                net + "0.bias": draw(hidden),
                net + "2.weight": draw(hidden, hidden, 1, 1),
                net + "2.bias": draw(hidden),
                net + "4.scale": draw(1, outputs, 1, 1),
                net + "4.conv.weight": draw(outputs, hidden, 3, 3),
                net + "4.conv.bias": draw(outputs),
            }
        inputs, outputs = (C, 2 * C) if b == L - 1 else (C // 2, C)
        values[f"blocks.{b}.prior.scale"] = draw(1, outputs, 1, 1)
        values[f"blocks.{b}.prior.conv.weight"] = draw(outputs, inputs, 3, 3)
        values[f"blocks.{b}.prior.conv.bias"] = draw(outputs)
    return values


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
        pad_ones=True,
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


# Optimizers


def make_optimizer_state(
    values: dict[str, np.ndarray], config: ModelConfig, kind: str = "Adamax", steps: int = 3
) -> dict[str, Any]:
    """What a PyTorch optimizer keeps after some steps of random gradients."""
    model = mapping.build_reference(config, values)
    algorithm = getattr(torch.optim, kind)(model.parameters(), lr=1e-3, weight_decay=5e-5)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        algorithm.step()
    return algorithm.state_dict()


@pytest.mark.parametrize("kind", ["Adamax", "Adam"])
def test_optimizer_state_there_and_back(kind: str, tiny: dict, tmp_path: Path) -> None:
    state = make_optimizer_state(tiny, TINY, kind)
    file = save({"model": as_tensors(tiny), "optimizer": state}, tmp_path / "glow.pt")
    _, config, ours = convert(file)
    assert config.optimizer.optimizer == kind.lower()
    assert [int(count) for _, count in optax.tree.get_all_with_path(ours, "count")] == [3, 3]
    assert ours is not None
    kept = moments.from_optax(ours, config.model, config.optimizer)
    back = moments.to_state_dict(kept, config)
    assert list(back["state"]) == list(state["state"])
    for number, wanted in state["state"].items():
        assert back["state"][number].keys() == wanted.keys()
        for name in wanted:
            assert torch.equal(torch.as_tensor(back["state"][number][name]), wanted[name])
    fresh = mapping.build_reference(TINY, tiny)
    algorithm = getattr(torch.optim, kind)(fresh.parameters())
    algorithm.load_state_dict(back)
    assert algorithm.param_groups[0]["weight_decay"] == 5e-5


def test_an_optimizer_in_a_file_of_its_own(tiny: dict, tiny_file: Path) -> None:
    state = make_optimizer_state(tiny, TINY, steps=2)
    for content in (state, {"optimizer": state}):
        beside = save(content, tiny_file.parent / "optimizer.pt")
        _, _, ours = convert(tiny_file, optimizer=beside)
        assert int(optax.tree.get_all_with_path(ours, "count")[0][1]) == 2
    with pytest.raises(GlowError, match="holds no optimizer's state"):
        convert(tiny_file, optimizer=tiny_file)
    with pytest.raises(GlowError, match="There is no file"):
        convert(tiny_file, optimizer=tiny_file.parent / "none.pt")


def lose(name: str) -> Callable[[dict], None]:
    def fault(state: dict) -> None:
        del state["state"][4][name]

    return fault


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lose("exp_avg"), "lacks 'exp_avg'"),
        (lose("exp_inf"), "lacks 'exp_inf'"),
        (lose("step"), "'step' of .* is None"),
        (lambda s: s["state"][4].update(step=torch.tensor(9.0)), "at step 3 for .* and at 9 for"),
        (lambda s: s["state"][4].update(exp_avg=torch.zeros(2)), r"has shape \(2,\) and the param"),
        (lambda s: s["state"][4]["exp_inf"].fill_(float("nan")), "holds NaN"),
        (lambda s: s["param_groups"][0]["params"].pop(), "and the model has"),
        (lambda s: s["param_groups"].append({}), "one group"),
        (lambda s: s["param_groups"].__setitem__(0, 5), "one group"),
        (lambda s: s["state"][4].update(step=float("inf")), "'step' of .* is inf"),
        (lambda s: s["state"][0].update(max_exp_avg_sq=1), "amsgrad"),
        (lambda s: s["state"].update({0: {"momentum_buffer": 1}}), "neither Adamax nor Adam"),
        (lambda s: s["state"].update({1000: s["state"][0]}), "holds parameter 1000"),
    ],
)
def test_optimizer_states_that_are_refused(
    fault: Callable, message: str, tiny: dict, tmp_path: Path
) -> None:
    state = make_optimizer_state(tiny, TINY)
    fault(state)
    file = save({"model": as_tensors(tiny), "optimizer": state}, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=message) as caught:
        convert(file)
    assert "\n" not in str(caught.value)


def test_the_learning_rate_comes_from_the_optimizer_unless_hparams_tell(
    tiny: dict, tmp_path: Path
) -> None:
    state = make_optimizer_state(tiny, TINY)
    state["param_groups"][0].update(lr=2e-4, initial_lr=1e-3)
    file = save({"model": as_tensors(tiny), "optimizer": state}, tmp_path / "glow.pt")
    assert convert(file)[1].optimizer.lr == 1e-3
    (tmp_path / "hparams.json").write_text('{"lr": 0.25}')
    assert convert(file)[1].optimizer.lr == 0.25


def test_an_output_below_a_file_is_refused_before_anything_is_read(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(from_torch, monkeypatch, tiny_file, "--output", tiny_file / "run") == 2
    assert "below a file" in capsys.readouterr().err


# The scripts, and the way back


def test_there_and_back_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = (DATA / "midway.pt", "--output", tmp_path / "run")
    assert run(from_torch, monkeypatch, *arguments) == 0
    said = capsys.readouterr().out
    for part in ("y0ast/Glow-PyTorch", "K = 2, L = 2", "12 x 12 x 1", "7,568", "after 6 updates"):
        assert part in said
    for figure in ("latents", "log-determinant", "bits/dim", "encode -> decode"):
        assert figure in said
    loaded = load_run(tmp_path / "run")
    assert loaded.step == 6
    assert loaded.config.training.batch_size == 16

    exported = tmp_path / "export" / "glow.pt"
    assert run(to_torch_command, monkeypatch, tmp_path / "run", "--output", exported) == 0
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
    assert run(to_torch_command, monkeypatch, tmp_path / "run", "--output", exported) == 2
    assert "glow.pt exists" in capsys.readouterr().err
    assert run(from_torch, monkeypatch, *arguments) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_a_run_without_optimizer_and_hparams_of_another(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tiny_file.parent
    assert run(from_torch, monkeypatch, tiny_file, "--output", folder / "run", "--no_check") == 0
    (folder / "hparams.json").write_text("{}")
    arguments = (folder / "run", "--output", folder / "new.pt")
    assert run(to_torch_command, monkeypatch, *arguments) == 2
    assert "hparams.json exists" in capsys.readouterr().err
    assert not (folder / "new.pt").exists()
    (folder / "hparams.json").unlink()
    assert run(to_torch_command, monkeypatch, *arguments) == 0
    assert "optimizer's state is left out" in capsys.readouterr().out
    assert not (folder / "optimizer.pt").exists()
    assert run(to_torch_command, monkeypatch, *arguments, "--average") == 2
    assert "no averaged parameters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pad_ones": True}, "pad with ones"),
        ({"plain_levels": (0,)}, "some levels only"),
        ({"n_bits": 5}, "5-bit images"),
        ({"flow_permutation": "shuffle"}, "shuffle permutations"),
        ({"multi_class": True, "y_condition": True}, "multi-hot"),
    ],
)
def test_models_that_glow_pytorch_cannot_hold(settings: dict, reason: str) -> None:
    with pytest.raises(GlowError, match=f"cannot hold this model: .*{reason}"):
        to_torch.check_fits(ModelConfig(**settings))


def test_their_settings_are_all_there() -> None:
    theirs = json.loads((DATA / "hparams.json").read_text())
    ours = to_torch.to_hparams(Config(optimizer=OptimizerConfig(lr=1e-3)))
    assert list(ours) == list(theirs)
    assert ours["lr"] == 1e-3


def test_the_command_line(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    script = [sys.executable, "convert/from_torch.py"]
    missing = subprocess.run(
        [*script, tmp_path / "none.pt"],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert "There is no file" in missing.stderr
