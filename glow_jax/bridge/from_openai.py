"""Checkpoints of openai/glow as models, configurations and optimizer states of glow_jax.

Their exponential moving average is the average of the run; their Adamax is `openai_adamax`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glow_jax.bridge.conversion import Conversion
from glow_jax.bridge.layouts import common, limits, openai, openai_graph
from glow_jax.bridge.layouts.common import Given
from glow_jax.bridge.mapping import layout_shapes, to_glow
from glow_jax.bridge.openai_settings import (
    Needed,
    build_config,
    check_settings,
    dataset_of,
    needed,
    what_differs,
)
from glow_jax.bridge.openai_slots import read_optimizer
from glow_jax.bridge.openai_values import read_one, read_values
from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, guarded, naming
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
    flags = {k: v.item() if isinstance(v, np.generic) else v for k, v in flags.items()}
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
            state, step = read_optimizer(file, names.slots, model, config.optimizer, notes)
        names_images = dataset_of(file.settings or {}) is not None
    average = None if averages is None else to_glow(averages, config.model)
    return Conversion(
        *(openai.NAME, values, model, config, state, step, notes, average, averages, names_images)
    )


def _sort(file: OpenaiFile, notes: list[str]) -> _Names:
    """The names of a file by what they are; a name of no known kind counts as a weight's."""
    weights: dict[str, str] = {}
    averages: dict[str, str] = {}
    slots: set[str] = set()
    for name, there in _candidates(file).items():
        if not file.is_graph and _SLOT.fullmatch(name):
            slots.add(there)
        elif name.endswith(_AVERAGE):
            averages[name.removesuffix(_AVERAGE)] = there
        else:
            weights[name] = there
    if averages and all(openai.is_order(name) for name in weights):
        # What `save_ema` of their model writes: raw weights under these names.
        notes.append("It holds weights under the names of averages only: they are the model.")
        weights, averages = weights | averages, {}
    return _Names(weights, averages, slots)


def _candidates(file: OpenaiFile) -> dict[str, str]:
    """The names of what may be weights to those in the file: of a graph, not every constant."""
    if not file.is_graph:
        return {name: name for name in file.variables}
    there = {_imported(name): name for name in file.variables}
    constants = {name: file.variables[there[name]] for name in there}
    read = {_imported(name) for name in file.read_names}
    return {name: there[name] for name in openai_graph.find_weights(constants, read)}


def _imported(name: str) -> str:
    """A name in the graph that TensorFlow imported into another one, which puts it in a scope."""
    return name.removeprefix("import/") if name.startswith("import/model/") else name


def _configure(
    file: OpenaiFile,
    names: _Names,
    flags: Mapping[str, float | None],
    memory: int,
    notes: list[str],
) -> Config:
    """The configuration of a run, by names, shapes, settings and flags; nothing else is read."""
    settings = needed(file.settings, file.settings_problem, flags, notes)
    given = Given(settings.image_size, None, settings.n_bits, memory=memory)
    shapes = {name: file.variables[there].shape for name, there in names.weights.items()}
    model = openai.infer(shapes, given)
    trained = openai.places(model)
    orders = openai.needed_orders(model, names.weights, is_graph=file.is_graph)
    if file.settings is not None:
        check_settings(file.settings, model, is_graph=file.is_graph)
    common.check_keys(names.weights, [*trained, *orders])
    if names.averages:
        common.check_keys(names.averages, trained, lambda name: name + _AVERAGE)
    if file.settings is not None:
        notes += what_differs(file.settings)
    else:
        notes.append(f"Its training settings are the defaults: {file.settings_problem}")
    if model.flow_permutation == "reverse" and "flow_permutation" not in (file.settings or {}):
        notes.append(
            "No settings tell how channels are mixed: the order is taken to be reversed, which has "
            "no variables. A shuffled model that lost its orders would look the same."
        )
    _check_weight(settings, model)
    y_weight = settings.y_weight
    if flags["y_weight"] and not (model.y_condition and model.classifier):
        notes.append("--y_weight is left out: the model has no classifier.")
        y_weight = None
    return build_config(model, file.settings, y_weight, notes)


def _check_weight(settings: Needed, model: ModelConfig) -> None:
    if model.y_condition and model.classifier and settings.y_weight is None:
        raise GlowError(
            "Its settings do not tell the weight of the classification loss; give, for example, "
            "--y_weight 0.01."
        )


def _read_weights(file: OpenaiFile, names: _Names, model: ModelConfig) -> dict[str, np.ndarray]:
    """The weights, and the orders of shuffled channels, under keys of Glow-PyTorch's layout."""
    values = read_values(file, names.weights, model)
    limits.check_mixings(values, model, _spelling(model))
    orders = {
        name: read_one(file, names.weights[name], shape, "int32")
        for name, shape in openai.order_shapes(model).items()
        if name in names.weights
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
        "which evaluation and samples take unless --no_average is given."
    )
    averages = read_values(file, names.averages, model)
    limits.check_mixings(averages, model, _spelling(model, _AVERAGE))
    return {**values, **averages}


def _spelling(model: ModelConfig, suffix: str = "") -> Callable[[str], str]:
    """How a key of Glow-PyTorch's layout is spelt in a file, with what marks an average."""
    name_of = {place.key: name + suffix for name, place in openai.places(model).items()}
    return name_of.__getitem__
