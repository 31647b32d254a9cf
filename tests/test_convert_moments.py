"""Optimizer states of PyTorch: there and back, and the states that the converter refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optax
import pytest

pytest.importorskip("torch")

import torch
from torch_files import TINY, Values, as_tensors, save, tiny_values

from glow_jax import GlowError, ModelConfig
from glow_jax.bridge import mapping, moments
from glow_jax.bridge.from_torch import convert


def make_optimizer_state(
    values: Values, config: ModelConfig, kind: str = "Adamax", steps: int = 3
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
def test_optimizer_state_there_and_back(kind: str, tmp_path: Path) -> None:
    tiny = tiny_values()
    state = make_optimizer_state(tiny, TINY, kind)
    file = save({"model": as_tensors(tiny), "optimizer": state}, tmp_path / "glow.pt")
    _, config, ours = convert(file)
    expected: moments.Algorithm = "adamax" if kind == "Adamax" else "adam"
    assert config.optimizer.optimizer == expected
    assert [int(count) for _, count in optax.tree.get_all_with_path(ours, "count")] == [3, 3]
    assert ours is not None
    kept = moments.from_optax(ours, config.model, expected, config.optimizer.lr)
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


def test_an_optimizer_in_a_file_of_its_own(tmp_path: Path) -> None:
    tiny = tiny_values()
    tiny_file = save(tiny_values(), tmp_path / "glow.pt")
    state = make_optimizer_state(tiny, TINY, steps=2)
    for content in (state, {"optimizer": state}):
        beside = save(content, tmp_path / "optimizer.pt")
        _, _, ours = convert(tiny_file, optimizer=beside)
        assert int(optax.tree.get_all_with_path(ours, "count")[0][1]) == 2
    with pytest.raises(GlowError, match="holds no optimizer's state"):
        convert(tiny_file, optimizer=tiny_file)
    with pytest.raises(GlowError, match="There is no file"):
        convert(tiny_file, optimizer=tmp_path / "none.pt")


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
def test_optimizer_states_that_are_refused(fault: Callable, message: str, tmp_path: Path) -> None:
    tiny = tiny_values()
    state = make_optimizer_state(tiny, TINY)
    fault(state)
    file = save({"model": as_tensors(tiny), "optimizer": state}, tmp_path / "glow.pt")
    with pytest.raises(GlowError, match=message) as caught:
        convert(file)
    assert "\n" not in str(caught.value)


def test_the_learning_rate_comes_from_the_optimizer_unless_hparams_tell(tmp_path: Path) -> None:
    tiny = tiny_values()
    state = make_optimizer_state(tiny, TINY)
    state["param_groups"][0].update(lr=2e-4, initial_lr=1e-3)
    file = save({"model": as_tensors(tiny), "optimizer": state}, tmp_path / "glow.pt")
    assert convert(file)[1].optimizer.lr == 1e-3
    (tmp_path / "hparams.json").write_text('{"lr": 0.25}')
    assert convert(file)[1].optimizer.lr == 0.25
