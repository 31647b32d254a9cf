"""Checkpoints of openai/glow as models, configurations and optimizer states of glow_jax.

Their exponential moving average is the average of the run; their Adamax is `openai_adamax`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flax import nnx

from glow_jax.bridge.conversion import Conversion
from glow_jax.bridge.layouts import common, limits, openai
from glow_jax.bridge.layouts.common import Given
from glow_jax.bridge.mapping import fill, layout_shapes, to_glow
from glow_jax.bridge.moments import MOST_STEPS, to_optax
from glow_jax.bridge.openai_settings import Needed, build_config, check_settings, needed
from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, guarded
from glow_jax.bridge.reading.openai_files import OpenaiFile, open_openai
from glow_jax.config import Config, ModelConfig
from glow_jax.errors import GlowError, shown

_AVERAGE = "/ExponentialMovingAverage"
_SLOT = re.compile(r"Variable(_\d{1,9})?")


@dataclass(frozen=True)
class _Names:
    """The names in a file, by what they are: the model's names to those in the file.

    Attributes:
        weights: of the weights and of the orders of shuffled channels.
        averages: of the weights' moving averages.
        slots: of the optimizer's state, which are the same in the file.
        notes: what was taken for something else than it is called.
    """

    weights: dict[str, str]
    averages: dict[str, str]
    slots: set[str]
    notes: list[str]


@dataclass(frozen=True)
class _Moments:
    """The state of their Adamax, under keys of Glow-PyTorch's layout."""

    step: int
    mu: dict[str, np.ndarray]
    nu: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Contents:
    """What a file holds, checked, in Glow-PyTorch's layout."""

    config: Config
    values: dict[str, np.ndarray]
    average: dict[str, np.ndarray] | None
    moments: _Moments | None
    notes: list[str]


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
        y_weight: weight of the classification loss, where no `train.txt` tells.
        memory: the number of bytes that the file may take.

    Returns:
        The model of the raw weights, which openai/glow evaluates; the average, if the file holds
        one; and the optimizer's state, if it holds that.

    Raises:
        GlowError: the file cannot be converted; the message says why.
    """
    path = Path(path)
    flags = {"image_size": image_size, "n_bits": n_bits, "y_weight": y_weight}
    with open_openai(path, memory=memory) as file, guarded(shown(str(path), 200)):
        try:
            contents = _read(file, flags, memory)
        except GlowError as error:
            raise GlowError(f"{shown(str(path), 200)}: {error}") from error
    config, moments = contents.config, contents.moments
    model = to_glow(contents.values, config.model)
    average = None
    if contents.average is not None:
        average = nnx.clone(model)
        params = nnx.state(model, nnx.Param)
        nnx.update(average, fill(params, contents.average, config.model))
    return Conversion(
        openai.NAME,
        contents.values,
        model,
        config,
        None
        if moments is None
        else to_optax(moments.mu, moments.nu, moments.step, model, config.optimizer),
        0 if moments is None else moments.step,
        contents.notes,
        average,
    )


def _read(file: OpenaiFile, flags: Mapping[str, float | None], memory: int) -> _Contents:
    """Read and check everything that is needed, and nothing else."""
    names = _sort(file)
    settings = needed(file.settings, file.settings_problem, flags)
    given = Given(settings.image_size, None, settings.n_bits, memory=memory)
    shapes = {name: file.variables[there].shape for name, there in names.weights.items()}
    model = openai.infer(shapes, given)
    trained, orders = openai.places(model), openai.order_shapes(model)
    expected = {name: place.shape for name, place in trained.items()} | orders
    common.check_keys(names.weights, expected)
    if file.settings is not None:
        check_settings(file.settings, model, is_graph=file.is_graph)
    _check_weight(settings, model)
    config = build_config(model, file.settings, settings.y_weight)

    values = _read_values(file, {name: names.weights[name] for name in trained}, model)
    name_of = {place.key: name for name, place in trained.items()}
    limits.check_mixings(values, model, name_of.__getitem__)
    read = {name: _read_one(file, names.weights[name], orders[name], "int32") for name in orders}
    for name, order in openai.check_orders(read).items():
        values[openai.order_key(name, model)] = order
    average = None
    if names.averages:
        common.check_keys(names.averages, trained, lambda name: name + _AVERAGE)
        average = _read_values(file, names.averages, model)
        names.notes.append(
            "The raw weights are the model, which its own program evaluates; the average is the "
            "run's, which eval.py and sample.py take unless --no_average is given."
        )
    moments = _read_moments(file, names, model, names.notes)
    return _Contents(config, values, average, moments, names.notes)


def _sort(file: OpenaiFile) -> _Names:
    """The names of a file by what they are; a name of no known kind counts as a weight's."""
    weights: dict[str, str] = {}
    averages: dict[str, str] = {}
    slots: set[str] = set()
    notes: list[str] = []
    for name in file.variables:
        if not file.is_graph and _SLOT.fullmatch(name):
            slots.add(name)
        elif name.endswith(_AVERAGE):
            averages[name.removesuffix(_AVERAGE)] = name
        elif openai.is_weight(name, is_graph=file.is_graph):
            weights[name] = name
    if averages and all(openai.is_order(name) for name in weights):
        # What `save_ema` of their model writes: raw weights under these names.
        notes.append("It holds weights under the names of averages only: they are the model.")
        weights, averages = weights | averages, {}
    return _Names(weights, averages, slots, notes)


def _check_weight(settings: Needed, model: ModelConfig) -> None:
    if model.classifier and settings.y_weight is None:
        raise GlowError(
            "Its settings do not tell the weight of the classification loss; give, for example, "
            "--y_weight 0.01."
        )


def _read_one(file: OpenaiFile, name: str, shape: common.Shape, dtype: str) -> np.ndarray:
    """One tensor, whose declaration is compared before it is read."""
    declared = file.variables[name]
    if declared.shape != shape or declared.dtype != dtype:
        raise GlowError(
            f"'{shown(name)}' is {declared.dtype} of shape {shown(declared.shape)}; the other "
            f"variables make it {dtype} of shape {shape}."
        )
    return file.read(name)


def _read_values(
    file: OpenaiFile, names: Mapping[str, str], model: ModelConfig
) -> dict[str, np.ndarray]:
    """Tensors of the weights' shapes, under keys of Glow-PyTorch's layout.

    Args:
        file: the file.
        names: of the weights' names, those in the file.
        model: the architecture.
    """
    shapes, values = layout_shapes(model), {}
    for name, place in openai.places(model).items():
        array = _read_one(file, names[name], place.shape, "float32")
        if not np.all(np.isfinite(array)):
            raise GlowError(f"'{names[name]}' holds NaN or infinite values.")
        values[place.key] = openai.to_layout(array, place, shapes)
    values["prior_h"] = np.zeros(shapes["prior_h"], np.float32)
    return values


def _read_moments(
    file: OpenaiFile, names: _Names, model: ModelConfig, notes: list[str]
) -> _Moments | None:
    """The state of their Adamax; None if there is none, or it is of another algorithm's.

    The slots have no names of their own: `Variable` is t, and the j-th weight that their program
    made has its largest gradient in `Variable_{2j+1}` and its mean gradient in `Variable_{2j+2}`.
    """
    if not names.slots:
        return None
    algorithm = (file.settings or {}).get("optimizer", "adamax")
    if algorithm != "adamax":
        notes.append(
            f"The optimizer's state is left out: it is of {shown(algorithm)}, not of adamax."
        )
        return None
    weights = list(openai.places(model))
    largest = {name: f"Variable_{2 * j + 1}" for j, name in enumerate(weights)}
    mean = {name: f"Variable_{2 * j + 2}" for j, name in enumerate(weights)}
    common.check_keys(names.slots, ["Variable", *largest.values(), *mean.values()])
    t = float(_read_one(file, "Variable", (), "float32"))
    if not (t.is_integer() and 1 <= t <= MOST_STEPS):
        raise GlowError(f"'Variable', the optimizer's step, is {t}; it must be a whole number.")
    nu, mu = _read_values(file, largest, model), _read_values(file, mean, model)
    for name, place in openai.places(model).items():
        if np.any(nu[place.key] < 0):
            raise GlowError(f"'{largest[name]}' holds negative values; it is a largest size.")
    return _Moments(int(t) - 1, mu, nu)
