"""The variables of small models of openai/glow, and what may be wrong with them."""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glow_jax import ModelConfig
from tests import openai_models
from tests.openai_files import DTYPES

Arrays = dict[str, np.ndarray]

_SMALL = {"K": 1, "L": 1, "hidden_channels": 2, "image_shape": (4, 4, 1)}
_MODELS: list[dict[str, object]] = [
    {},
    {"flow_coupling": "additive", "learn_top": False, "n_bits": 5},
    {"flow_permutation": "shuffle", "K": 2, "hidden_channels": 4},
    {"flow_permutation": "reverse", "L": 2, "image_shape": (8, 8, 1)},
    {"L": 2, "image_shape": (4, 4, 3), "hidden_channels": 3, "flow_coupling": "additive"},
    {"y_condition": True, "y_classes": 3},
    {"y_condition": True, "y_classes": 3, "classifier": False, "flow_permutation": "shuffle"},
]


@dataclass(frozen=True)
class Parts:
    """All that the checkpoint of a model may hold, by names; it is not to be written to.

    Attributes:
        model: the architecture.
        weights: the weights, and the orders of shuffled channels.
        averages: the weights' averages.
        slots: the optimizer's state.
    """

    model: ModelConfig
    weights: Arrays
    averages: Arrays
    slots: Arrays

    def settings(self) -> dict[str, object]:
        """Line 1 of train.txt."""
        more = {"problem": "cifar10", "lr": 1e-3, "epochs_warmup": 10, "n_batch_train": 16}
        more |= {"polyak_epochs": 1, "optimizer": "adamax", "extra_invertible": 0}
        if self.model.y_condition:
            weight = 0.01 if self.model.classifier else 0.0
            more |= {"ycond": True, "n_y": self.model.y_classes, "weight_y": weight}
        return openai_models.settings(self.model, **more)


def some_model(rng: random.Random, *, is_graph: bool) -> Parts:
    """One of the models; a frozen graph has no classifier."""
    numbers = [n for n, some in enumerate(_MODELS) if not (is_graph and n == 5)]
    return _parts(rng.choice(numbers))


@functools.cache
def _parts(number: int) -> Parts:
    model = openai_models.architecture(**{**_SMALL, **_MODELS[number]})
    weights = openai_models.variables(model)
    return Parts(model, weights, openai_models.averages(model), openai_models.slots(model))


def damage_variables(arrays: Arrays, rng: random.Random) -> str:
    """Change a name or its values; say how."""
    if not arrays:
        return "nothing"
    names = list(arrays)
    special = [n for n in names if n == "Variable" or n.endswith(("invconv/W", "indices"))]
    name = rng.choice(special if special and rng.random() < 0.25 else names)
    if rng.random() < 0.3:
        return _damage_name(arrays, name, rng)
    how, change = rng.choice(_CHANGES)
    try:
        changed = change(arrays[name], rng)
    except (ValueError, IndexError, OverflowError):  # NumPy has no such array
        return "nothing"
    if changed.dtype.name not in DTYPES:
        return "nothing"
    arrays[name] = changed
    return f"{how} {name}"


def _damage_name(arrays: Arrays, name: str, rng: random.Random) -> str:
    digits = rng.choice(["0", "1", "2", "15", "16", "2047", "99999", "9" * 7, "007", "²", "٣"])
    parts = name.split("/")
    numbered = [place for place, part in enumerate(parts) if part.isdigit()]
    if numbered:
        parts[rng.choice(numbered)] = digits
    average = "/ExponentialMovingAverage"
    how = rng.choice(["drop", "rename", "double", "odd", "kind", "part", "only averages", "slot"])
    match how:
        case "drop":
            del arrays[name]
        case "rename":
            arrays["/".join(parts)] = arrays.pop(name)
        case "double":
            arrays["/".join(parts)] = arrays[name]
        case "odd":
            odd = ["a", "a\n\x1b[2J", "x" * 1001, "\u202e", f"{name}/{name}", f"{name}\0", "/"]
            odd += ["model/0/0/invconv/P", "model/cond/w", "global_step", average, "model/0/0/"]
            arrays[rng.choice(odd)] = arrays[name]
        case "kind":
            is_average = name.endswith(average)
            kind = name.removesuffix(average) if is_average else name + average
            arrays[kind] = arrays.pop(name)
        case "part":
            for other in [n for n in arrays if n.startswith(name.rpartition("/")[0])]:
                del arrays[other]
        case "only averages":
            for other in [n for n in arrays if n + average in arrays]:
                del arrays[other]
        case "slot":
            number = rng.choice(["", "_0", "_1", "_2", "_007", "_1000", "_" + "9" * 12, "_²"])
            arrays["Variable" + number] = arrays[name]
    return f"{how} {name}"


_FILLS = [np.nan, np.inf, -np.inf, 0.0, 1e38, -1e38, 1e-45, 1e4, -200.0, 200.0, 0.5, 2**31, -1.0]
_KINDS = ["float64", "int32", "uint8", "int64", "bool", "float32"]


def _poked(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """One value of many replaced, as only a check of every value finds."""
    array = array.copy()
    value = rng.choice([np.nan, 1e30, 0.0, -1.0, -1e-45])
    array.reshape(-1)[rng.randrange(array.size)] = value
    return array


def _recast(array: np.ndarray, rng: random.Random) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return array.astype(rng.choice(_KINDS))


_CHANGES: list[tuple[str, Callable[[np.ndarray, random.Random], np.ndarray]]] = [
    ("fill", lambda a, rng: np.full_like(a, rng.choice(_FILLS if a.dtype.kind == "f" else [0, 1]))),
    ("poke", _poked),
    ("negative", lambda a, rng: -a),
    ("reversed", lambda a, rng: a[::-1].copy()),
    ("dtype", _recast),
    ("longer", lambda a, rng: np.concatenate([a, a], rng.randrange(max(a.ndim, 1)))),
    ("shorter", lambda a, rng: a[..., : a.shape[-1] // 2]),
    ("empty", lambda a, rng: a[:0]),
    ("scalar", lambda a, rng: a.reshape(-1)[0].reshape(())),
    ("flat", lambda a, rng: a.reshape(-1)),
    ("axes", lambda a, rng: a.reshape(*[1] * rng.choice([1, 5, 28]), *a.shape)),
    ("turned", lambda a, rng: np.ascontiguousarray(a.T)),
    ("wide", lambda a, rng: np.repeat(a, rng.choice([3, 20, 300]), rng.randrange(max(a.ndim, 1)))),
    ("singular", lambda a, rng: np.ones_like(a)),
    ("large", lambda a, rng: np.zeros(rng.choice([10**5, 10**6]), a.dtype)),
]
