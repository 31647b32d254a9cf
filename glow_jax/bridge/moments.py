"""The state of PyTorch's Adamax and Adam, and of optax's: the same numbers in other places.

| PyTorch, `state[i]` | optax |
|---|---|
| `exp_avg` | `mu` |
| `exp_inf` (Adamax), `exp_avg_sq` (Adam) | `nu` |
| `step` | `count`, the schedule's too |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from glow_jax.bridge.mapping import Shape, extract, parameter_keys
from glow_jax.config import Config, ModelConfig, OptimizerConfig
from glow_jax.errors import GlowError, shown
from glow_jax.model import Glow
from glow_jax.training.optimizer import WEIGHT_DECAY, make_optimizer

Algorithm = Literal["adamax", "adam"]

_SECOND_MOMENT: dict[Algorithm, str] = {"adamax": "exp_inf", "adam": "exp_avg_sq"}
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_DECOUPLED = "decoupled_weight_decay"  # a setting of AdamW

# A run keeps its numbers as float32 and counts its updates with an int32.
LARGEST_NUMBER = 1e38
MOST_STEPS = 2**31 - 1


class StateDict(TypedDict):
    """The state dict of a PyTorch optimizer, its states by the parameters' numbers."""

    state: dict[int, dict[str, torch.Tensor]]
    param_groups: list[dict[str, object]]


@dataclass(frozen=True)
class Moments:
    """An optimizer's state, under the model's keys in Glow-PyTorch's layout.

    Attributes:
        algorithm: Adamax or Adam.
        step: the number of updates done.
        lr: the learning rate that the optimizer was given; None if the file does not say.
        mu: moving averages of the gradients.
        nu: moving maxima (Adamax) or averages of squares (Adam) of the gradients.
        notes: settings that do not carry over, one sentence each.
    """

    algorithm: Algorithm
    step: int
    lr: float | None
    mu: dict[str, np.ndarray]
    nu: dict[str, np.ndarray]
    notes: list[str]


def read_moments(
    state_dict: Mapping[str, object],
    parameters: Sequence[str | None],
    shapes: Mapping[str, Shape],
) -> Moments:
    """Read the state dict of a PyTorch optimizer.

    Args:
        state_dict: `{"state", "param_groups"}`, the moments as arrays.
        parameters: the key of each parameter that the optimizer numbers; None for a parameter that
            Glow-PyTorch does not have.
        shapes: the shape of each key.

    Returns:
        The moments. A parameter that was never updated has moments of zero.

    Raises:
        GlowError: it is not the state of an Adamax or Adam of this model.
    """
    states, group = _states_and_group(state_dict)
    key_of = _keys_by_number(group, parameters)
    algorithm = _algorithm(states, group)
    mu: dict[str, np.ndarray] = {}
    nu: dict[str, np.ndarray] = {}
    steps: dict[str, int] = {}
    untouched: list[str] = []
    for number, key in key_of.items():
        if key is None:
            continue
        if number not in states:
            untouched.append(key)
            continue
        state = states[number]
        mu[key] = _moment(state, "exp_avg", key, shapes[key])
        nu[key] = _moment(state, _SECOND_MOMENT[algorithm], key, shapes[key])
        steps[key] = _step(state, key)
    strangers = [number for number in states if number not in key_of]
    if strangers:
        raise GlowError(
            f"The optimizer's state holds parameter {shown(strangers[0])}, which the model does "
            "not have."
        )
    step = _common_step(steps)
    dtype = next((array.dtype for array in mu.values()), np.dtype(np.float32))
    for key in untouched:
        mu[key], nu[key] = (np.zeros(shapes[key], dtype) for _ in range(2))
    notes = _differences(group, untouched if steps and step else [])
    return Moments(algorithm, step, _learning_rate(group), mu, nu, notes)


def _states_and_group(
    state_dict: Mapping[str, object],
) -> tuple[dict[object, object], dict[str, object]]:
    """The states by parameter number, and the one group of parameters."""
    states, groups = state_dict["state"], state_dict["param_groups"]
    if isinstance(states, dict) and isinstance(groups, list) and len(groups) == 1:
        (group,) = groups
        if isinstance(group, dict):
            return states, group
    raise GlowError("The optimizer's state must have one group of parameters.")


def _keys_by_number(
    group: Mapping[str, object], parameters: Sequence[str | None]
) -> dict[object, str | None]:
    numbers = group.get("params")
    numbers = numbers if isinstance(numbers, list | tuple) else ()
    if len(numbers) != len(parameters):
        raise GlowError(
            f"The optimizer's state is of {len(numbers)} parameters and the model has "
            f"{len(parameters)}: they do not belong together."
        )
    if not all(type(number) is int for number in numbers) or len({*numbers}) < len(numbers):
        raise GlowError(
            "The optimizer's group must number its parameters by different whole numbers, and its "
            f"params are {shown(numbers)}."
        )
    return dict(zip(numbers, parameters, strict=True))


def _learning_rate(group: Mapping[str, object]) -> float | None:
    # A scheduler overwrites `lr` with its current rate and keeps the given one as `initial_lr`.
    lr = group.get("initial_lr", group.get("lr"))
    if isinstance(lr, bool) or not isinstance(lr, int | float):
        return None
    if not 0 <= lr <= LARGEST_NUMBER:
        raise GlowError(
            f"The optimizer's lr is {shown(lr)}; it must be from 0 to {LARGEST_NUMBER:.0e}."
        )
    return float(lr) or None


def _algorithm(states: Mapping[object, object], group: Mapping[str, object]) -> Algorithm:
    """The algorithm, by the moments that it keeps; before the first update by its settings."""
    kept = next(iter(states.values()), {})
    if not isinstance(kept, dict):
        raise GlowError("The optimizer's state must hold named tensors for each parameter.")
    if "max_exp_avg_sq" in kept or group.get("amsgrad") is True:
        raise GlowError("The optimizer is Adam with amsgrad, which glow_jax does not have.")
    # NAdam and RAdam keep moments of the same names.
    is_other = "mu_product" in kept or (_DECOUPLED in group and "amsgrad" not in group)
    for algorithm, name in _SECOND_MOMENT.items():
        if name in kept and not is_other:
            return algorithm
    if not states and "betas" in group and not is_other:
        return "adam" if "amsgrad" in group else "adamax"
    says = "it keeps" if states else "its settings are"
    names = ", ".join(shown(name) for name in [*(kept if states else group)][:8])
    raise GlowError(f"The optimizer is neither Adamax nor Adam: {says} {names or 'nothing'}.")


def _moment(state: object, name: str, key: str, shape: Shape) -> np.ndarray:
    value = state.get(name) if isinstance(state, dict) else None
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise GlowError(f"The optimizer's state of {key!r} lacks {name!r}, a tensor of floats.")
    if value.shape != shape:
        raise GlowError(
            f"The optimizer's {name!r} of {key!r} has shape {value.shape} and the parameter "
            f"{shape}: they do not belong together."
        )
    if not np.all(np.isfinite(value)):
        raise GlowError(f"The optimizer's {name!r} of {key!r} holds NaN or infinite values.")
    return value


def _step(state: object, key: str) -> int:
    step = state.get("step") if isinstance(state, dict) else None
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    if not isinstance(step, int) or not 0 <= step <= MOST_STEPS:
        raise GlowError(
            f"The optimizer's 'step' of {key!r} is {shown(step)}; it must be a whole number from 0 "
            f"to {MOST_STEPS}."
        )
    return step


def _common_step(steps: Mapping[str, int]) -> int:
    if not steps:
        return 0
    first_key, first = next(iter(steps.items()))
    for key, step in steps.items():
        if step != first:
            raise GlowError(
                f"The optimizer is at step {first} for {first_key!r} and at {step} for {key!r}; "
                "optax counts one step for all."
            )
    return first


def _differences(group: Mapping[str, object], untouched: Sequence[str]) -> list[str]:
    """The settings in which `make_optimizer` differs, and the parameters without moments."""
    ours = {"betas": _BETAS, "eps": _EPSILON, "weight_decay": WEIGHT_DECAY, "maximize": False}
    notes = []
    for name, value in ours.items():
        theirs = group.get(name, value)
        if isinstance(theirs, list):
            theirs = tuple(theirs)
        how, added = "", ""
        if name == "weight_decay":
            added = ", added to the gradient"
            if group.get(_DECOUPLED) is True:
                how = ", decoupled from the gradient as in AdamW"
        if not isinstance(theirs, int | float | tuple) or theirs != value or how:
            notes.append(
                f"Its optimizer had {name} = {shown(theirs)}{how}; training goes on with "
                f"{value}{added}."
            )
    if untouched:
        notes.append(
            f"Parameters that were never updated have moments of zero: {len(untouched)}, the first "
            f"of them {untouched[0]}."
        )
    return notes


def to_optax(
    mu: nnx.State, nu: nnx.State, step: int, model: Glow, config: OptimizerConfig
) -> optax.OptState:
    """The state with which `make_optimizer(config, ...)` goes on where another program stopped.

    Args:
        mu: mean gradients, a state like that of the model's parameters.
        nu: largest gradients, or mean squares, the same.
        step: the number of updates done.
        model: the model that is trained.
        config: the optimizer.
    """
    params = nnx.state(model, nnx.Param)
    # The state does not depend on the length of an epoch.
    fresh = jax.eval_shape(make_optimizer(config, updates_per_epoch=1).init, params)
    return optax.tree_utils.tree_set(fresh, mu=mu, nu=nu, count=jnp.asarray(step, jnp.int32))


def from_optax(
    state: optax.OptState, model: ModelConfig, algorithm: Algorithm, lr: float
) -> Moments:
    """The inverse of `to_optax`."""
    # optax.adamax keeps its moments under this name, too.
    adam = optax.tree_utils.tree_get(state, "ScaleByAdamState")
    mu, nu = extract(adam.mu, model), extract(adam.nu, model)
    return Moments(algorithm, int(adam.count), lr, mu, nu, [])


def to_state_dict(moments: Moments, config: Config) -> StateDict:
    """The state dict that `torch.optim.Adamax` or `Adam` of the published model loads."""
    keys = parameter_keys(config.model)
    second = _SECOND_MOMENT[moments.algorithm]
    group: dict[str, object] = {
        "lr": config.optimizer.lr,
        "betas": _BETAS,
        "eps": _EPSILON,
        "weight_decay": WEIGHT_DECAY,
        "foreach": None,
        "maximize": False,
        "differentiable": False,
        "capturable": False,
    }
    if moments.algorithm == "adam":
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
