"""State of PyTorch's Adamax and Adam, and of optax's: the same numbers in other places.

| PyTorch, `state[i]` | optax |
|---|---|
| `exp_avg` | `mu` |
| `exp_inf` (Adamax), `exp_avg_sq` (Adam) | `nu` |
| `step` | `count`, the schedule's too |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax
import torch

from glow_jax.bridge.mapping import fill, parameter_keys, read_out
from glow_jax.config import Config, ModelConfig, OptimizerConfig
from glow_jax.errors import GlowError
from glow_jax.model import Glow, take_apart
from glow_jax.training.optimizer import WEIGHT_DECAY, make_optimizer

Kind = Literal["adamax", "adam"]

_SECOND_MOMENT: dict[Kind, str] = {"adamax": "exp_inf", "adam": "exp_avg_sq"}
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Moments:
    """An optimizer's state, under the model's keys in Glow-PyTorch's layout.

    Attributes:
        kind: the algorithm.
        step: the number of updates done.
        lr: the learning rate that it was given, None where the file does not tell.
        mu: averages of the gradient.
        nu: averages of its size.
        notes: what does not carry over, a sentence each.
    """

    kind: Kind
    step: int
    lr: float | None
    mu: dict[str, np.ndarray]
    nu: dict[str, np.ndarray]
    notes: list[str]


def read(
    state_dict: dict[str, Any], parameters: Sequence[str | None], shapes: dict[str, tuple[int, ...]]
) -> Moments:
    """Read the state dict of a PyTorch optimizer.

    Args:
        state_dict: `{"state", "param_groups"}`.
        parameters: the key of each parameter that it numbers, None for one that has no
            counterpart.
        shapes: shapes of the keys.

    Raises:
        GlowError: it is not the state of this model's Adamax or Adam.
    """
    states, groups = state_dict["state"], state_dict["param_groups"]
    if (
        not isinstance(states, dict)
        or not isinstance(groups, list)
        or [type(group) for group in groups] != [dict]
    ):
        raise GlowError("The optimizer's state must have one group of parameters.")
    group = groups[0]
    numbers = list(group.get("params", ()))
    if len(numbers) != len(parameters):
        raise GlowError(
            f"The optimizer's state is of {len(numbers)} parameters and the model has "
            f"{len(parameters)}: they do not belong together."
        )
    key_of = dict(zip(numbers, parameters, strict=True))
    kind = _kind(states)
    dtype = np.dtype(np.float32)
    mu, nu, steps, untouched = {}, {}, {}, []
    for number, key in key_of.items():
        if key is None:
            continue
        if number not in states:
            untouched.append(key)
            continue
        state = states[number]
        mu[key] = _moment(state, "exp_avg", key, shapes[key])
        nu[key] = _moment(state, _SECOND_MOMENT[kind], key, shapes[key])
        steps[key] = _step(state, key)
        dtype = mu[key].dtype
    strangers = sorted(set(states) - set(key_of), key=str)
    if strangers:
        raise GlowError(f"The optimizer's state holds parameter {strangers[0]}, which is not one.")
    step = _common_step(steps)
    for key in untouched:
        mu[key], nu[key] = (np.zeros(shapes[key], dtype) for _ in range(2))
    # Under a scheduler, `lr` is the rate of the moment and `initial_lr` the one it was given.
    lr = group.get("initial_lr", group.get("lr"))
    lr = float(lr) if isinstance(lr, int | float) and lr > 0 else None
    return Moments(kind, step, lr, mu, nu, _differences(group, untouched if mu and step else []))


def _kind(states: dict[Any, Any]) -> Kind:
    """The algorithm, by what it keeps; Adamax if it has not begun."""
    for state in states.values():
        if not isinstance(state, dict):
            raise GlowError("The optimizer's state must hold named tensors for each parameter.")
        if "max_exp_avg_sq" in state:
            raise GlowError("The optimizer is Adam with amsgrad, which glow_jax does not have.")
        for kind, name in _SECOND_MOMENT.items():
            if name in state:
                return kind
        raise GlowError(
            f"The optimizer is neither Adamax nor Adam: it keeps {', '.join(map(str, state))}."
        )
    return "adamax"


def _moment(state: Any, name: str, key: str, shape: tuple[int, ...]) -> np.ndarray:
    value = state.get(name) if isinstance(state, dict) else None
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise GlowError(f"The optimizer's state of {key!r} lacks {name!r}.")
    if tuple(value.shape) != shape:
        raise GlowError(
            f"The optimizer's {name!r} of {key!r} has shape {tuple(value.shape)} and the parameter "
            f"{shape}: they do not belong together."
        )
    if value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    array = value.numpy()
    if not np.all(np.isfinite(array)):
        raise GlowError(f"The optimizer's {name!r} of {key!r} holds NaN or infinite values.")
    return array


def _step(state: dict[str, Any], key: str) -> int:
    step = state.get("step")
    if isinstance(step, torch.Tensor) and step.numel() == 1:
        step = step.item()
    if (
        not isinstance(step, int | float)
        or not math.isfinite(step)
        or int(step) != step
        or step < 0
    ):
        raise GlowError(f"The optimizer's 'step' of {key!r} is {step}; it must be a whole number.")
    return int(step)


def _common_step(steps: dict[str, int]) -> int:
    if not steps:
        return 0
    first_key, first = next(iter(steps.items()))
    for key, step in steps.items():
        if step != first:
            raise GlowError(
                f"The optimizer is at step {first} for {first_key!r} and at {step} for {key!r}; "
                "optax counts them as one."
            )
    return first


def _differences(group: dict[str, Any], untouched: list[str]) -> list[str]:
    """What the optimizer was told that `make_optimizer` does otherwise."""
    ours = {"betas": _BETAS, "eps": _EPSILON, "weight_decay": WEIGHT_DECAY}
    notes = [
        f"Its optimizer had {name} = {group[name]}; training goes on with {value}."
        for name, value in ours.items()
        if name in group and group[name] != value
    ]
    if untouched:
        notes.append(
            f"{len(untouched)} parameters were never updated ({untouched[0]}, ...): their moments "
            "are zero."
        )
    return notes


def to_optax(moments: Moments, model: Glow, config: OptimizerConfig) -> optax.OptState:
    """The state of `make_optimizer(config, ...)` that goes on where PyTorch stopped."""
    params = take_apart(model).params
    # The state does not depend on the length of an epoch.
    fresh = make_optimizer(config, updates_per_epoch=1).init(params)
    return optax.tree_utils.tree_set(
        fresh,
        mu=fill(params, moments.mu, model.config),
        nu=fill(params, moments.nu, model.config),
        count=jnp.asarray(moments.step, jnp.int32),
    )


def from_optax(state: optax.OptState, model: ModelConfig, config: OptimizerConfig) -> Moments:
    """The inverse of `to_optax`."""
    algorithm = "ScaleByAdamState"  # of Adam and Adamax alike

    def get(name: str) -> Any:
        return optax.tree_utils.tree_get(
            state, name, filtering=lambda path, _: algorithm in str(path)
        )

    step = int(get("count"))
    mu, nu = (read_out(get(name), model) for name in ("mu", "nu"))
    return Moments(config.optimizer, step, config.lr, mu, nu, [])


def to_state_dict(moments: Moments, config: Config) -> dict[str, Any]:
    """The state dict that `torch.optim.Adamax` or `Adam` of the published model loads."""
    keys = parameter_keys(config.model)
    second = _SECOND_MOMENT[moments.kind]
    group: dict[str, Any] = {
        "lr": config.optimizer.lr,
        "betas": _BETAS,
        "eps": _EPSILON,
        "weight_decay": WEIGHT_DECAY,
        "foreach": None,
        "maximize": False,
        "differentiable": False,
        "capturable": False,
    }
    if moments.kind == "adam":
        group |= {"amsgrad": False, "fused": None}
    state = {
        number: {
            "step": torch.tensor(float(moments.step)),
            "exp_avg": torch.from_numpy(moments.mu[key]),
            second: torch.from_numpy(moments.nu[key]),
        }
        for number, key in enumerate(keys)
    }
    return {"state": state, "param_groups": [group | {"params": list(range(len(keys)))}]}
