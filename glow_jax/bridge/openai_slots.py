"""The optimizer's state in a checkpoint of openai/glow, as optax's."""

from collections.abc import Collection, Mapping

import numpy as np
import optax
from flax import nnx

from glow_jax.bridge.layouts import common, openai
from glow_jax.bridge.mapping import fill
from glow_jax.bridge.moments import MOST_STEPS, to_optax
from glow_jax.bridge.openai_values import read_one, read_values
from glow_jax.bridge.reading.openai_files import OpenaiFile
from glow_jax.config import ModelConfig, OptimizerConfig
from glow_jax.errors import GlowError, shown
from glow_jax.model import Glow


def read_optimizer(
    file: OpenaiFile, slots: Collection[str], model: Glow, config: OptimizerConfig, notes: list[str]
) -> tuple[optax.OptState | None, int]:
    """The state of their Adamax and the number of its updates; None and 0 if there is none.

    The weights do not depend on it: whatever is wrong with it leaves it out, and a note says why.
    """
    if not slots:
        return None, 0
    settings = file.settings or {}
    algorithm = settings.get("optimizer", "adamax")
    try:
        if algorithm != "adamax":
            raise GlowError(f"it is of {shown(algorithm)}, not of adamax.")
        if settings.get("beta1") == 0:
            raise GlowError("its beta1 is 0, so their program kept no mean gradients.")
        step = _read_step(file, slots, model.config)
        state = _read_state(file, step, model, config)
    except GlowError as error:
        notes.append(f"The optimizer's state is left out: {error}")
        return None, 0
    if "optimizer" not in settings:
        notes.append(
            "No settings say whose the optimizer's state is: it is taken for adamax's, their "
            "default; those of adam and adam2 have the same names."
        )
    return state, step


def _read_step(file: OpenaiFile, slots: Collection[str], model: ModelConfig) -> int:
    """The number of updates done.

    Raises:
        GlowError: these are not the variables of their Adamax for this model.
    """
    largest, mean = _slots(model)
    common.check_keys(slots, ["Variable", *largest.values(), *mean.values()])
    t = float(read_one(file, "Variable", (), "float32"))
    if not (t.is_integer() and 1 <= t <= MOST_STEPS):
        raise GlowError(
            f"'Variable', the optimizer's step, is {t}; it must be a whole number from 1 "
            f"to {MOST_STEPS}."
        )
    return int(t) - 1


def _read_state(
    file: OpenaiFile, step: int, model: Glow, config: OptimizerConfig
) -> optax.OptState:
    """The state of their Adamax, in which it has done `step` updates."""
    largest, mean = _slots(model.config)
    nu = _read_like(file, largest, model)
    for path, leaf in nnx.to_flat_state(nu):
        if (np.asarray(leaf[...]) < 0).any():
            where = ".".join(map(str, path))
            raise GlowError(f"The optimizer's largest gradient of {where} is negative.")
    return to_optax(_read_like(file, mean, model), nu, step, model, config)


def _slots(model: ModelConfig) -> tuple[dict[str, str], dict[str, str]]:
    """Where the largest and the mean gradient of each weight are: slots have only numbers.

    `Variable` is the step. The j-th weight that their program made has the largest gradient in
    `Variable_{2j+1}` and the mean gradient in `Variable_{2j+2}`.
    """
    numbered = list(enumerate(openai.places(model)))
    largest = {name: f"Variable_{2 * j + 1}" for j, name in numbered}
    return largest, {name: f"Variable_{2 * j + 2}" for j, name in numbered}


def _read_like(file: OpenaiFile, names: Mapping[str, str], model: Glow) -> nnx.State:
    """Tensors of the weights' shapes as a state like that of the model's parameters."""
    values = read_values(file, names, model.config)
    state = fill(nnx.state(model, nnx.Param), values, model.config)
    file.give_back(values.values())
    return state
