"""The layout of y0ast/Glow-PyTorch and its published weights; the others are translated to it."""

import re
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from glow_jax.bridge.layouts import common, hparams, limits
from glow_jax.bridge.layouts.common import Found, Given, Shape, StepTensor
from glow_jax.bridge.mapping import layout_shapes
from glow_jax.bridge.reading.settings import stated
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, shown

NAME = "y0ast/Glow-PyTorch"

_LAYER = re.compile(r"flow\.layers\.(\d+)\.(.+)")
_STEP = re.compile(r"actnorm\.(bias|logs)|invconv\.\w+|block\.[024]\..+")
_SPLIT = re.compile(r"conv\.(conv\.weight|conv\.bias|logs)")
_LARGEST_SCALE = 1e6
BUFFERS = ("prior_h", ".invconv.p", ".invconv.sign_s")


def matches(keys: set[str]) -> bool:
    """Whether a state dict is in this layout."""
    return any(re.match(r"flow\.layers\.\d+\.block\.", key) for key in keys)


def translate(
    arrays: Mapping[str, np.ndarray], given: Given, spell: Callable[[str], str] = str
) -> Found:
    """Infer the architecture, and check every key against it.

    Args:
        arrays: the state dict.
        given: what the user and `hparams.json` say about it.
        spell: turns a key into its spelling in the file, for messages.

    Raises:
        GlowError: a key is missing or wrong, `given` contradicts the weights, or neither tells the
            permutation.
    """
    config, permutation_stored = _infer({k: a.shape for k, a in arrays.items()}, given, spell)
    common.check_arrays(arrays, layout_shapes(config), spell)
    if np.any(arrays["prior_h"]):
        raise GlowError(f"Key {spell('prior_h')!r} is not zero, as every Glow's is.")
    limits.check_mixings(arrays, config, spell)
    hparams.check_hparams(config, given, permutation_stored=permutation_stored)
    parameters: list[str | None] = [key for key in arrays if not key.endswith(BUFFERS)]
    return Found(config, dict(arrays), parameters)


def _infer(
    shapes: Mapping[str, Shape], given: Given, spell: Callable[[str], str]
) -> tuple[ModelConfig, bool]:
    """The architecture by keys and shapes, and whether it has 1x1 convolutions."""
    steps: dict[int, dict[str, Shape]] = {}
    splits: dict[int, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        if layer := _LAYER.fullmatch(key):
            for kind, layers in ((_STEP, steps), (_SPLIT, splits)):
                if kind.fullmatch(layer[2]):
                    number = limits.check_layer(layer[1], spell(key))
                    layers.setdefault(number, {})[layer[2]] = shape
    limits.check_counts(len(splits) + 1, len(steps))
    K, L = _count(sorted(steps), sorted(splits), shapes, spell)

    tensors = [
        StepTensor(layer // (K + 2), name, shape)
        for layer, step in sorted(steps.items())
        for name, shape in step.items()
    ]
    channels = common.image_channels(
        (level, shape[1] if name.startswith("actnorm") else shape[0])
        for level, name, shape in tensors
        if (name.startswith("actnorm") and len(shape) == 4)
        or (name.startswith("invconv") and shape)
    )
    hidden = common.vote(
        shape[0] if name.endswith("weight") else shape[1]
        for _, name, shape in tensors
        if re.match(r"block\.[02]\.", name) and len(shape) == 4
    )
    has_invconv = any(tensor.name.startswith("invconv.") for tensor in tensors)
    LU_decomposed, plain_levels = common.lu_levels(tensors, L) if has_invconv else (True, ())
    height, width = _top_size(shapes, spell)
    classes = _classes(shapes)
    sides = (height * 2**L, width * 2**L)
    limits.check_size(sides, channels, hidden or 1, classes or 0, K, L, given)
    config = ModelConfig(
        K=K,
        L=L,
        hidden_channels=hidden or 1,
        actnorm_scale=_actnorm_scale(given),
        flow_permutation="invconv" if has_invconv else _ask_permutation(given),
        flow_coupling=common.coupling_kind(tensors, "block.4.", channels),
        LU_decomposed=LU_decomposed,
        learn_top=any(key.startswith("learn_top_fn.") for key in shapes),
        y_condition=classes is not None,
        n_bits=hparams.n_bits_of(given, 8),
        image_shape=(*sides, channels),
        y_classes=classes or ModelConfig.y_classes,
        plain_levels=plain_levels,
    )
    return config, has_invconv


def _top_size(shapes: Mapping[str, Shape], spell: Callable[[str], str]) -> tuple[int, int]:
    """Height and width of the top latent, in pixels."""
    shape = shapes.get("prior_h")
    if shape is None:
        raise GlowError(f"Key {spell('prior_h')!r} is missing: the file is incomplete.")
    if len(shape) != 4:
        raise GlowError(
            f"Key {spell('prior_h')!r} has shape {shown(shape)}; it must have four axes."
        )
    return shape[2], shape[3]


def _classes(shapes: Mapping[str, Shape]) -> int | None:
    """The number of classes of a conditional model, 0 if the shapes do not tell; else None."""
    if not any(key.startswith("project_") for key in shapes):
        return None
    classes = common.vote(
        shape[-1] if key == "project_ycond.linear.weight" else shape[0]
        for key, shape in shapes.items()
        if (key.startswith("project_class.") or key == "project_ycond.linear.weight") and shape
    )
    return classes or 0


def _count(
    steps: list[int], splits: list[int], shapes: Mapping[str, Shape], spell: Callable[[str], str]
) -> tuple[int, int]:
    """K and L, from the numbers of the layers that are steps or splits, which leave no gaps."""

    def key_of(layer: int) -> str:
        return spell(next(key for key in shapes if key.startswith(f"flow.layers.{layer}.")))

    counts, starts = [], [1, *(split + 2 for split in splits)]
    for level, start in enumerate(starts):
        split = splits[level] if level < len(splits) else None
        layers = [layer for layer in steps if layer >= start - 1 and layer < (split or layer + 1)]
        found = [*layers, *([] if split is None else [split])]
        for wanted, layer in enumerate(found, start):
            if layer != wanted:
                raise GlowError(
                    f"Key '{shown(key_of(layer))}' does not fit the model that the other keys "
                    "describe: layers before it are missing."
                )
        if not layers:
            raise GlowError(f"Key 'flow.layers.{start}.actnorm.bias' is missing: a level is empty.")
        counts.append(len(layers))
    return common.check_steps(counts, [key_of(start) for start in starts]), len(counts)


def _actnorm_scale(given: Given) -> float:
    scale = (given.hparams or {}).get("actnorm_scale", 1.0)
    match scale:
        case bool():
            pass
        case int() | float() if 0 < scale <= _LARGEST_SCALE:
            return float(scale)
    raise GlowError(
        f"{stated('actnorm_scale', scale)}; it must be a number above 0 and at most "
        f"{_LARGEST_SCALE:.0e}."
    )


def _ask_permutation(given: Given) -> Literal["reverse"]:
    """The permutation of a file whose keys do not tell it: reverse, or a refusal."""
    said = given.flow_permutation or (given.hparams or {}).get("flow_permutation")
    if said is None:
        raise GlowError(
            "The file has no 1x1 convolutions, so its permutation is reverse or shuffle, which "
            "leave no keys: give --flow_permutation reverse if it is reverse."
        )
    if said == "shuffle":
        raise GlowError(
            "The model has flow_permutation shuffle: its orders were drawn when it was built and "
            "never stored, so nobody can restore it."
        )
    if said != "reverse":
        raise GlowError(
            f"flow_permutation is said to be {shown(said)}, but the weights have no 1x1 "
            "convolutions: keys 'invconv.*' are missing."
        )
    return "reverse"
