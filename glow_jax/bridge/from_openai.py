"""Checkpoints of openai/glow as models, configurations and optimizer states of glow_jax.

Their exponential moving average is the average of the run; their Adamax is `openai_adamax`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optax
from flax import nnx

from glow_jax.bridge.conversion import Conversion
from glow_jax.bridge.layouts import common, limits, openai
from glow_jax.bridge.layouts.common import Given
from glow_jax.bridge.mapping import fill, layout_shapes, to_glow
from glow_jax.bridge.moments import MOST_STEPS, to_optax
from glow_jax.bridge.openai_settings import (
    Needed,
    build_config,
    check_settings,
    needed,
    what_differs,
)
from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, guarded, naming
from glow_jax.bridge.reading.openai_files import OpenaiFile, open_openai
from glow_jax.config import Config, ModelConfig, OptimizerConfig
from glow_jax.errors import GlowError, shown
from glow_jax.model import Glow

_AVERAGE = "/ExponentialMovingAverage"
_SLOT = re.compile(r"Variable(_\d{1,9})?")


@dataclass(frozen=True)
class _Names:
    """The names in a file, by what they are: the model's names to those in the file.

    Attributes:
        weights: of the weights and of the orders of shuffled channels.
        averages: of the weights' moving averages.
        slots: of the optimizer's state, as the file numbers them.
    """

    weights: dict[str, str]
    averages: dict[str, str]
    slots: set[str]


def convert(
    path: str | Path,
    *,
    image_size: int | None = None,
    n_bits: int | None = None,
    y_weight: float | None = None,
    memory: int = DEFAULT_LIMIT,
) -> Conversion:
    """Convert a checkpoint or a frozen graph of openai/glow.

    Args:
        path: a folder with a checkpoint; what its files' names begin with; its `.index`; a tar
            archive of such a folder; or a frozen graph, whose name ends in `.pb`.
        image_size: height and width in pixels, where no `train.txt` tells.
        n_bits: bits kept of each pixel, where no `train.txt` tells.
        y_weight: weight of the classification loss in nats, where no `train.txt` tells. It is
            weight_y / log 2, since theirs is in bits.
        memory: the number of bytes that the file may take.

    Returns:
        The model of the raw weights, which openai/glow evaluates; the average, if the file holds
        one; and the optimizer's state, if it holds that.

    Raises:
        GlowError: the file cannot be converted; the message says why.
    """
    name = shown(str(path), 200)
    flags = {"image_size": image_size, "n_bits": n_bits, "y_weight": y_weight}
    notes: list[str] = []
    # Part by part, so that only one part at a time is held twice.
    with open_openai(Path(path), memory=memory) as file:
        with guarded(name), naming(name):
            names = _sort(file, notes)
            config = _configure(file, names, flags, memory, notes)
            values = _read_weights(file, names, config.model)
        model = to_glow(values, config.model)
        with guarded(name), naming(name):
            averages = _read_averages(file, names, values, config.model, notes)
            state, step = _read_optimizer(file, names, model, config.optimizer, notes)
    average = None if averages is None else to_glow(averages, config.model)
    return Conversion(openai.NAME, values, model, config, state, step, notes, average, averages)


def _sort(file: OpenaiFile, notes: list[str]) -> _Names:
    """The names of a file by what they are; a name of no known kind counts as a weight's."""
    weights: dict[str, str] = {}
    averages: dict[str, str] = {}
    slots: set[str] = set()
    for name in file.variables:
        if not file.is_graph and _SLOT.fullmatch(name):
            slots.add(name)
        elif name.endswith(_AVERAGE):
            averages[name.removesuffix(_AVERAGE)] = name
        elif not file.is_graph or openai.is_weight(name, file.variables[name]):
            weights[name] = name
    if averages and all(openai.is_order(name) for name in weights):
        # What `save_ema` of their model writes: raw weights under these names.
        notes.append("It holds weights under the names of averages only: they are the model.")
        weights, averages = weights | averages, {}
    return _Names(weights, averages, slots)


def _configure(
    file: OpenaiFile,
    names: _Names,
    flags: Mapping[str, float | None],
    memory: int,
    notes: list[str],
) -> Config:
    """The configuration of a run, by names, shapes, settings and flags; nothing else is read."""
    settings = needed(file.settings, file.settings_problem, flags)
    given = Given(settings.image_size, None, settings.n_bits, memory=memory)
    shapes = {name: file.variables[there].shape for name, there in names.weights.items()}
    model = openai.infer(shapes, given)
    trained = openai.places(model)
    common.check_keys(names.weights, [*trained, *openai.order_shapes(model)])
    if names.averages:
        common.check_keys(names.averages, trained, lambda name: name + _AVERAGE)
    if file.settings is not None:
        check_settings(file.settings, model, is_graph=file.is_graph)
        notes += what_differs(file.settings)
    else:
        notes.append(f"Its training settings are the defaults: {file.settings_problem}")
    _check_weight(settings, model)
    return build_config(model, file.settings, settings.y_weight)


def _check_weight(settings: Needed, model: ModelConfig) -> None:
    if model.y_condition and model.classifier and settings.y_weight is None:
        raise GlowError(
            "Its settings do not tell the weight of the classification loss; give, for example, "
            "--y_weight 0.01."
        )


def _read_weights(file: OpenaiFile, names: _Names, model: ModelConfig) -> dict[str, np.ndarray]:
    """The weights, and the orders of shuffled channels, under keys of Glow-PyTorch's layout."""
    values = _read_values(file, names.weights, model)
    limits.check_mixings(values, model, _spelling(model))
    orders = {
        name: _read_one(file, names.weights[name], shape, "int32")
        for name, shape in openai.order_shapes(model).items()
    }
    for name, order in openai.check_orders(orders).items():
        values[openai.order_key(name, model)] = order
    values["prior_h"] = np.zeros(layout_shapes(model)["prior_h"], np.float32)
    return values


def _read_averages(
    file: OpenaiFile,
    names: _Names,
    values: Mapping[str, np.ndarray],
    model: ModelConfig,
    notes: list[str],
) -> dict[str, np.ndarray] | None:
    """The averaged weights, beside what of `values` is not trained; None if the file holds none."""
    if not names.averages:
        return None
    notes.append(
        "The raw weights are the model, which its own program evaluates; the average is the run's, "
        "which eval.py and sample.py take unless --no_average is given."
    )
    averages = _read_values(file, names.averages, model)
    limits.check_mixings(averages, model, _spelling(model, _AVERAGE))
    return {**values, **averages}


def _spelling(model: ModelConfig, suffix: str = "") -> Callable[[str], str]:
    """How a key of Glow-PyTorch's layout is spelt in a file, with what marks an average."""
    name_of = {place.key: name + suffix for name, place in openai.places(model).items()}
    return name_of.__getitem__


def _read_optimizer(
    file: OpenaiFile, names: _Names, model: Glow, config: OptimizerConfig, notes: list[str]
) -> tuple[optax.OptState | None, int]:
    """The state of their Adamax and the number of its updates; None and 0 if there is none.

    The weights do not depend on it: whatever is wrong with it leaves it out, and a note says why.
    """
    if not names.slots:
        return None, 0
    settings = file.settings or {}
    algorithm = settings.get("optimizer", "adamax")
    try:
        if algorithm != "adamax":
            raise GlowError(f"it is of {shown(algorithm)}, not of adamax.")
        if settings.get("beta1") == 0:
            raise GlowError("its beta1 is 0, so their program kept no mean gradients.")
        step = _read_step(file, names, model.config)
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


def _read_step(file: OpenaiFile, names: _Names, model: ModelConfig) -> int:
    """The number of updates done.

    Raises:
        GlowError: these are not the variables of their Adamax for this model.
    """
    largest, mean = _slots(model)
    common.check_keys(names.slots, ["Variable", *largest.values(), *mean.values()])
    t = float(_read_one(file, "Variable", (), "float32"))
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
    return _like(model, _read_values(file, names, model.config))


def _like(model: Glow, values: Mapping[str, np.ndarray]) -> nnx.State:
    return fill(nnx.state(model, nnx.Param), values, model.config)


def _read_values(
    file: OpenaiFile, names: Mapping[str, str], model: ModelConfig
) -> dict[str, np.ndarray]:
    """Tensors of the weights' shapes, under keys of Glow-PyTorch's layout.

    Args:
        file: the file.
        names: the weights' names to those in the file.
        model: the architecture.
    """
    shapes, values = layout_shapes(model), {}
    for name, place in openai.places(model).items():
        array = _read_one(file, names[name], place.shape, "float32")
        if not np.all(np.isfinite(array)):
            raise GlowError(f"'{names[name]}' holds NaN or infinite values.")
        values[place.key] = openai.to_layout(array, place, shapes)
    return values


def _read_one(file: OpenaiFile, name: str, shape: common.Shape, dtype: str) -> np.ndarray:
    """One tensor, whose declaration is compared before it is read."""
    declared = file.variables[name]
    if declared.shape != shape or declared.dtype != dtype:
        raise GlowError(
            f"'{shown(name)}' is {declared.dtype} of shape {shown(declared.shape)}; the other "
            f"variables make it {dtype} of shape {shape}."
        )
    return file.read(name)
