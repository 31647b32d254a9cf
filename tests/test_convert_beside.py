"""What lies beside the weights: optimizers' states, averages, settings; what is left out of it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from test_convert_moments import make_optimizer_state
from torch_files import (
    TINY,
    Values,
    as_tensors,
    exit_status,
    make_rosinality,
    same,
    save,
    tiny_values,
)

from glow_jax import GlowError
from glow_jax.bridge import mapping
from glow_jax.bridge.from_torch import Conversion, convert, convert_file
from glow_jax.bridge.layouts import Given
from glow_jax.cli.from_torch import main as from_torch


def read(file: Path, weights: str | None = None, **how: Any) -> Conversion:
    """Convert a file with all that is said of it."""
    return convert_file(file, None, Given(), weights, **how)


def state_after_a_step(kind: str, **settings: Any) -> dict[str, Any]:
    """What a PyTorch optimizer of TINY keeps after one step."""
    model = mapping.build_reference(TINY, tiny_values())
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-3, **settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def two_groups() -> dict[str, Any]:
    state = state_after_a_step("Adam")
    (group,) = state["param_groups"]
    parts = ({**group, "params": group["params"][i::2]} for i in range(2))
    return {**state, "param_groups": list(parts)}


def of_another_model() -> dict[str, Any]:
    return torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()


OPTIMIZERS: dict[str, tuple[Any, str]] = {
    "SGD": (lambda: state_after_a_step("SGD", momentum=0.9), "it keeps momentum_buffer"),
    "SGD, nothing kept": (
        lambda: {**state_after_a_step("SGD"), "state": {}},
        "its settings are lr, momentum",
    ),
    "RMSprop": (lambda: state_after_a_step("RMSprop"), "neither Adamax nor Adam"),
    "NAdam": (lambda: state_after_a_step("NAdam"), "neither Adamax nor Adam"),
    "RAdam": (lambda: state_after_a_step("RAdam"), "neither Adamax nor Adam"),
    "amsgrad": (lambda: state_after_a_step("Adam", amsgrad=True), "Adam with amsgrad"),
    "two groups": (two_groups, "one group of parameters"),
    "another model": (of_another_model, "is of 1 parameters and the model has"),
    "no state": (lambda: {"lr": 1}, "holds no optimizer's state where it should"),
    "two": (lambda: [state_after_a_step("Adam")] * 2, "holds 2 optimizers' states"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_can_be_taken_without_the_optimizer(name: str, tmp_path: Path) -> None:
    make, message = OPTIMIZERS[name]
    file = save({"model": as_tensors(tiny_values()), "optimizer": make()}, tmp_path / "glow.pt")
    with pytest.raises(
        GlowError, match=f"{message}.*; give --no_optimizer_state to take the weights alone.$"
    ):
        convert(file)
    conversion = read(file, optimizer_state=False)
    assert same(mapping.from_glow(conversion.model), tiny_values())
    assert conversion.optimizer_state is None
    assert "Left out: 'optimizer'" in conversion.notes[-1]


def test_the_flag_that_takes_the_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = save(of_another_model(), tmp_path / "optimizer.pt")
    weights = save(tiny_values(), tmp_path / "glow.pt")
    archive = tmp_path / "glow.zip"
    with zipfile.ZipFile(archive, "w") as members:
        for file in (state, weights):
            members.write(file, file.name)
    with pytest.raises(GlowError, match="no_optimizer_state instead of --optimizer to take"):
        convert(weights, optimizer=state)
    with pytest.raises(GlowError, match="--no_optimizer_state to take the weights alone"):
        convert(archive)
    arguments = (archive, "--output", tmp_path / "run", "--no_check", "--no_optimizer_state")
    assert exit_status(from_torch, monkeypatch, *arguments, "--optimizer", state) == 2
    assert "contradict each other: give one." in capsys.readouterr().err
    assert exit_status(from_torch, monkeypatch, *arguments) == 0
    assert f"note          Left out: 'optimizer.pt in {archive}'." in capsys.readouterr().out


def test_an_optimizer_of_rosinality_can_be_left_out(tmp_path: Path) -> None:
    content = {"model": as_tensors(make_rosinality()), "optim": of_another_model()}
    file = save(content, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="other parameters; give --no_optimizer_state to take"):
        convert(file, image_size=8)
    assert convert(file, image_size=8, optimizer_state=False)[2] is None


def test_whatever_is_left_out_is_named(tmp_path: Path) -> None:
    content = {
        "epoch": 3,
        "net": {"G": as_tensors(tiny_values()), "D": {"fc.weight": torch.ones(1)}},
        "opt": state_after_a_step("Adam"),
        "best": as_tensors({"fc.weight": np.ones(1, np.float32)}),
        "nothing": None,
        **{f"loss{i}": 0.5 for i in range(9)},
    }
    (_, note) = read(save(content, tmp_path / "glow.pt")).notes
    assert note == (
        "Left out: 'opt' (an optimizer's state), 'best', 'net.D', 'epoch', 'loss0', 'loss1', "
        "'loss2', 'loss3' and 5 more."
    )
    bare = {**as_tensors(tiny_values()), "optimizer": {}, "epoch": 3, 5: {"a": 1}}
    assert read(save(bare, tmp_path / "glow.pt")).notes == ["Left out: '5', 'epoch'."]
    twice = {"model": (weights := as_tensors(tiny_values())), "ema": weights}
    notes = read(save(twice, tmp_path / "glow.pt")).notes
    assert notes == ["Its weights are taken from 'model'."]


def parameters_of(values: Values) -> dict[str, torch.Tensor]:
    """What an average usually holds: no buffers."""
    buffers = ("prior_h", "invconv.p", "invconv.sign_s")
    return {key: t for key, t in as_tensors(values).items() if not key.endswith(buffers)}


def test_an_average_of_the_parameters_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = tiny_values()
    other = {**tiny, "flow.layers.1.actnorm.bias": tiny["flow.layers.1.actnorm.bias"] + 1}
    shadow = parameters_of(other)
    content = {"model": as_tensors(tiny), "ema": {"decay": 0.9, "shadow": shadow}}
    file = save(content, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="say which by --weights"):
        convert(file)
    conversion = read(file, "ema")
    assert same(mapping.from_glow(conversion.model), other)
    said = (
        "It lacks buffers, which training does not change: 'prior_h', 'flow.layers.1.invconv.p', "
    )
    assert conversion.notes[1].startswith(said)
    assert conversion.notes[1].endswith(" are those of 'model'.")
    arguments = (file, "--output", tmp_path / "run", "--no_check", "--weights", "ema")
    assert exit_status(from_torch, monkeypatch, *arguments) == 0
    assert said in capsys.readouterr().out

    del shadow["flow.layers.1.actnorm.bias"]
    with pytest.raises(GlowError, match=r"Key 'flow\.layers\.1\.actnorm\.bias' is missing"):
        convert(save(content, file), weights="ema")


def test_an_average_of_rosinality(tmp_path: Path) -> None:
    values = make_rosinality()
    buffers = ("initialized", "w_p", "mask", "s_sign", "l_eye")
    shadow = {key: t for key, t in as_tensors(values).items() if not key.endswith(buffers)}
    file = save({"model": as_tensors(values), "ema": shadow}, tmp_path / "glow.pt")
    average, raw = (convert(file, image_size=8, weights=name)[0] for name in ("ema", "model"))
    assert same(mapping.from_glow(average), mapping.from_glow(raw))


@pytest.mark.parametrize("decay", [0.01, 5e-5])
def test_the_decay_of_adamw_is_not_carried_over(decay: float, tmp_path: Path) -> None:
    state = state_after_a_step("AdamW", weight_decay=decay)
    state["param_groups"][0]["decoupled_weight_decay"] = True  # as PyTorch writes from 2.6 on
    file = save({"model": as_tensors(tiny_values()), "optimizer": state}, tmp_path / "glow.pt")
    conversion = read(file)
    assert conversion.config.optimizer.optimizer == "adam"
    assert conversion.notes[1:] == [
        f"Its optimizer had weight_decay = {decay}, decoupled from the gradient as in AdamW; "
        "training goes on with 5e-05, added to the gradient."
    ]


def test_an_adam_before_its_first_update_is_an_adam(tmp_path: Path) -> None:
    state = make_optimizer_state(tiny_values(), TINY, "Adam", steps=0)
    file = save({"model": as_tensors(tiny_values()), "optimizer": state}, tmp_path / "glow.pt")
    assert convert(file)[1].optimizer.optimizer == "adam"


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"n_bits": 0}, "says n_bits = 0; it must be a whole number from 1 to 8"),
        ({"n_bits": 9}, "says n_bits = 9; it must be a whole number from 1 to 8"),
        ({"n_bits": "8"}, "says n_bits = '8'; it must be a whole number from 1 to 8"),
        ({"LU_decomposed": "true"}, "says LU_decomposed = 'true'; it must be true or false"),
        ({"learn_top": 2}, "says learn_top = 2; it must be true or false"),
        ({"K": "2"}, "says K = '2'; it must be a whole number"),
        ({"K": True}, "says K = True; it must be a whole number"),
        ({"lr": "0.001"}, "says lr = '0.001'; it must be a number"),
        ({"batch_size": 2.5}, "says batch_size = 2.5; it must be a whole number"),
        ({"augment": "true"}, "says augment = 'true'; it must be true or false"),
        ({"dataset": 5}, "says dataset = 5; it must be text"),
        ({"flow_coupling": 1}, "says flow_coupling = 1; it must be text"),
        ({"image_shape": [4.0, 8, 3]}, "it must be a list of whole numbers"),
        ({"image_shape": "4, 8, 3"}, "it must be a list of whole numbers"),
    ],
)
def test_settings_that_are_impossible(hparams: dict, message: str, tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    (tmp_path / "hparams.json").write_text(json.dumps(hparams))
    with pytest.raises(GlowError, match=message):
        convert(file)


def test_bits_are_those_of_the_settings_unless_they_do_not_tell(tmp_path: Path) -> None:
    file = save(tiny_values(), tmp_path / "glow.pt")
    (tmp_path / "hparams.json").write_text('{"n_bits": 5, "K": 2.0, "learn_top": 1, "warmup": 2.5}')
    assert convert(file)[1].model.n_bits == 5
    assert convert(file, n_bits=5)[1].model.n_bits == 5
    with pytest.raises(GlowError, match=r"--n_bits is 8, but hparams\.json says n_bits = 5"):
        convert(file, n_bits=8)
    (tmp_path / "hparams.json").write_text(f'{{"n_bits": {"9" * 5000}}}')
    with pytest.raises(GlowError, match="it holds a number of 5000 digits") as caught:
        convert(file)
    assert "set_int_max" not in str(caught.value)
