"""The layout of openai/glow: variables of TensorFlow 1, translated to Glow-PyTorch's layout.

Level i counts from 0, the finest; step k from 0.

| openai/glow, under `model/` | Glow-PyTorch |
|---|---|
| `i/k/...` | `flow.layers.N...`, a level being [squeeze, K steps, split] |
| `pooli/conv/...` | `flow.layers.N.conv...`, the split after level i |
| `prior/p`, `prior/y_emb`, `classifier` | `learn_top_fn`, `project_ycond`, `project_class` |
| convolution kernel (h, w, I, O) | (O, I, h, w) |
| 1x1 matrix [in, out], linear weight (I, O) | [out, in], (O, I) |
| vector with axes of length 1 | the same values, other axes |

What differs in meaning is part of the architecture: every 3x3 convolution has an edge bias, and all
actnorms multiply their logarithms by 3.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from glow_jax.bridge.layouts import common, limits
from glow_jax.bridge.layouts.common import Given, Shape, StepTensor
from glow_jax.bridge.mapping import layout_shapes, step_layer
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, shown

NAME = "openai/glow"

# In the order in which their program makes the variables, which numbers their optimizer's.
_ACTNORM = {"actnorm_center/b": "actnorm.bias", "actnorm_scale/logs": "actnorm.logs"}
_STEP = {
    **_ACTNORM,
    "invconv/W": "invconv.weight",
    "f1/l_1/W": "block.0.conv.weight",
    **{f"f1/l_1/{name}": f"block.0.{key}" for name, key in _ACTNORM.items()},
    "f1/l_2/W": "block.2.conv.weight",
    **{f"f1/l_2/{name}": f"block.2.{key}" for name, key in _ACTNORM.items()},
    "f1/l_last/W": "block.4.conv.weight",
    "f1/l_last/b": "block.4.conv.bias",
    "f1/l_last/logs": "block.4.logs",
}
_CONV = {"W": "conv.weight", "b": "conv.bias", "logs": "logs"}
_LINEAR = {"W": "linear.weight", "b": "linear.bias", "logs": "logs"}
_TOP = {
    "prior/p": ("learn_top_fn", _CONV),
    "prior/y_emb": ("project_ycond", _LINEAR),
    "classifier": ("project_class", _LINEAR),
}
_SHUFFLE = ("shuffle/indices", "shuffle/indices_inverse")

_NAME_IN_STEP = re.compile(r"model/(\d+)/(\d+)/(.+)")
_AFTER_A_LEVEL = re.compile(r"model/\d+/invconv/.+")

ENDINGS = {*(name.rpartition("/")[2] for name in (*_STEP, *_SHUFFLE))}
ENDINGS |= {"P", "L", "U", "sign_S", "log_S"}  # of a 1x1 that their code can factorise
"""The last parts of the names of variables, beside which a graph has constants of other kinds."""


def is_order(name: str) -> bool:
    """Whether a name is of an order of shuffled channels, which nothing trains."""
    return name.endswith(_SHUFFLE)


class Place(NamedTuple):
    """Where a variable belongs.

    Attributes:
        key: its key in Glow-PyTorch's layout.
        shape: its shape in openai/glow.
        order: its axes, in the order of Glow-PyTorch's layout; empty for a vector.
    """

    key: str
    shape: Shape
    order: tuple[int, ...]


def places(config: ModelConfig) -> dict[str, Place]:
    """Every trained variable of an architecture, in the order in which their program makes them."""
    shapes = layout_shapes(config)
    found: dict[str, Place] = {}

    def add(prefix: str, layer: str, names: Mapping[str, str]) -> None:
        for name, key in names.items():
            if (shape := shapes.get(f"{layer}.{key}")) is not None:
                found[f"model/{prefix}/{name}"] = _place(f"{layer}.{key}", shape)

    for level in range(config.L):
        for k in range(config.K):
            add(f"{level}/{k}", f"flow.layers.{step_layer(config, level, k)}", _STEP)
        split = f"flow.layers.{step_layer(config, level, config.K)}.conv"
        if level < config.L - 1:
            add(f"pool{level}/conv", split, _CONV)
    for name, (layer, names) in _TOP.items():
        add(name, layer, names)
    return found


def order_shapes(config: ModelConfig) -> dict[str, Shape]:
    """The variables that hold the orders of shuffled channels, and their shapes."""
    if config.flow_permutation != "shuffle":
        return {}
    return {
        f"model/{level}/{k}/{name}": (4 * config.image_shape[2] * 2**level,)
        for level in range(config.L)
        for k in range(config.K)
        for name in _SHUFFLE
    }


def _place(key: str, shape: Shape) -> Place:
    """Where the variable of a tensor belongs that has this shape in Glow-PyTorch's layout."""
    if key.endswith(".weight"):  # kernels (O, I, h, w) and matrices (O, I)
        order = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
        return Place(key, tuple(shape[order.index(axis)] for axis in range(len(shape))), order)
    before = 3 if key.endswith(("actnorm.bias", "actnorm.logs", "conv.bias")) else 1
    return Place(key, (*(before * (1,)), max(shape)), ())


def to_layout(array: np.ndarray, place: Place, shapes: Mapping[str, Shape]) -> np.ndarray:
    """A variable as Glow-PyTorch's layout has it; kernels and matrices are views.

    Args:
        array: the variable, of the place's shape.
        place: where it belongs.
        shapes: the shapes of Glow-PyTorch's layout.
    """
    return array.transpose(place.order) if place.order else array.reshape(shapes[place.key])


def infer(shapes: Mapping[str, Shape], given: Given) -> ModelConfig:
    """The architecture by names and shapes, image size and bits by `given`.

    Args:
        shapes: the shapes of the variables, without averages and the optimizer's.
        given: image size and bits of each pixel, both known.

    Raises:
        GlowError: the names are not those of a Glow, or describe one that is too large.
    """
    tensors, steps = [], set()
    for name, shape in shapes.items():
        if _AFTER_A_LEVEL.fullmatch(name):
            raise GlowError(
                f"'{shown(name)}' is of a 1x1 convolution after a level (extra_invertible), which "
                f"is not in the public code of {NAME}."
            )
        if match := _NAME_IN_STEP.fullmatch(name):
            level, k = (limits.check_layer(number, name) for number in match.groups()[:2])
            tensors.append(StepTensor(level, match[3], shape))
            steps.add((level, k))
    if not steps:
        first = shown(next(iter(shapes), ""))
        raise GlowError(f"These are not the weights of a Glow of {NAME}: the first is '{first}'.")
    limits.check_counts(1 + max(level for level, _ in steps), len(steps))
    K, L = common.count_steps(steps, "model/{}")
    channels = common.image_channels(
        (level, shape[-1])
        for level, name, shape in tensors
        if name in (*_ACTNORM, "invconv/W", *_SHUFFLE) and shape
    )
    hidden = common.vote(
        shape[-1] for _, name, shape in tensors if re.match(r"f1/l_[12]/", name) and shape
    )
    classes = None
    if any(name.startswith(("model/prior/y_emb/", "model/classifier/")) for name in shapes):
        classes = _classes(shapes)
    assert given.image_size is not None, "settings are complete here"
    assert given.n_bits is not None, "settings are complete here"
    sides = (given.image_size, given.image_size)
    limits.check_size(sides, channels, hidden or 1, classes or 0, K, L, given)
    kinds = {tensor.name for tensor in tensors}
    last = [StepTensor(level, name, shape[::-1]) for level, name, shape in tensors]
    return ModelConfig(
        K=K,
        L=L,
        hidden_channels=hidden or 1,
        flow_permutation=_permutation(kinds),
        flow_coupling=common.coupling_kind(last, "f1/l_last/", channels),
        LU_decomposed=False,
        learn_top=any(name.startswith("model/prior/p/") for name in shapes),
        padding="edge_bias",
        y_condition=classes is not None,
        n_bits=given.n_bits,
        image_shape=(*sides, channels),
        y_classes=classes or ModelConfig.y_classes,
        classifier=classes is None or any(name.startswith("model/classifier/") for name in shapes),
        actnorm_logs_factor=3.0,
    )


def _permutation(kinds: Iterable[str]) -> common.FlowPermutation:
    """How channels are mixed, by the names within steps; reverse has no variable."""
    if any(kind.startswith("invconv/") for kind in kinds):
        return "invconv"
    return "shuffle" if any(kind.startswith("shuffle/") for kind in kinds) else "reverse"


def _classes(shapes: Mapping[str, Shape]) -> int:
    """The number of classes of a conditional model, 0 if the shapes do not tell."""
    votes = [
        shape[0 if name == "model/prior/y_emb/W" else -1]
        for name, shape in shapes.items()
        if shape and (name == "model/prior/y_emb/W" or name.startswith("model/classifier/"))
    ]
    return common.vote(votes) or 0


def needed_orders(config: ModelConfig, found: Collection[str], *, is_graph: bool) -> list[str]:
    """The orders of shuffled channels that a file must hold.

    Args:
        config: the architecture.
        found: the names of the file's weights.
        is_graph: whether it is a frozen graph: one of only one direction holds one of each two.
    """
    names = list(order_shapes(config))
    other = dict(zip(names[::2] + names[1::2], names[1::2] + names[::2], strict=True))
    return [name for name in names if name in found or not (is_graph and other[name] in found)]


def check_orders(orders: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The orders of shuffled channels, by the names of the variables `indices`.

    Args:
        orders: the orders and their inverses; one of each two is enough.

    Raises:
        GlowError: one is no permutation, or is not the inverse of the one that is stored as such.
    """
    found: dict[str, np.ndarray] = {}
    for name, order in orders.items():
        if not np.array_equal(np.sort(order), np.arange(len(order))):
            raise GlowError(f"'{name}' is no permutation: every channel must occur once.")
        base = name.removesuffix("_inverse")
        indices = order if name == base else np.argsort(order).astype(order.dtype)
        if not np.array_equal(found.setdefault(base, indices), indices):
            raise GlowError(f"'{base}' and '{base}_inverse' contradict each other.")
    return found


def order_key(name: str, config: ModelConfig) -> str:
    """The key in Glow-PyTorch's layout of an order of shuffled channels."""
    match = _NAME_IN_STEP.fullmatch(name)
    assert match is not None, "infer has matched it"
    return f"flow.layers.{step_layer(config, int(match[1]), int(match[2]))}.invconv.indices"
