"""The layout of y0ast/Glow-PyTorch, in which the published weights are: the hub of all others."""

import re
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from glow_jax.bridge.layouts.common import (
    Found,
    Given,
    check,
    check_hparams,
    check_steps,
    image_channels,
    lu_levels,
    vote,
)
from glow_jax.bridge.mapping import template
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError

NAME = "y0ast/Glow-PyTorch"

_LAYER = re.compile(r"flow\.layers\.(\d+)\.(.+)")
_STEP = re.compile(r"actnorm\.(bias|logs)|invconv\.\w+|block\.[024]\..+")
_SPLIT = re.compile(r"conv\.(conv\.weight|conv\.bias|logs)")
_BUFFERS = ("prior_h", ".invconv.p", ".invconv.sign_s")

Shape = tuple[int, ...]


def matches(keys: set[str]) -> bool:
    """Whether a state dict is in this layout."""
    return any(re.match(r"flow\.layers\.\d+\.block\.", key) for key in keys)


def read(
    arrays: Mapping[str, np.ndarray], given: Given, spell: Callable[[str], str] = str
) -> Found:
    """Infer the architecture, and check every key against it.

    Args:
        arrays: the state dict.
        given: what the user and `hparams.json` say.
        spell: a key as the file has it, for messages.

    Raises:
        GlowError: the file is not whole, contradicts what is given, or does not tell enough.
    """
    config, permutation_stored = _infer({k: a.shape for k, a in arrays.items()}, given, spell)
    check(arrays, template(config), spell)
    if np.any(arrays["prior_h"]):
        raise GlowError(f"Key {spell('prior_h')!r} is not zero, as every Glow's is.")
    config = check_hparams(config, given, permutation_stored=permutation_stored)
    parameters: list[str | None] = [key for key in arrays if not key.endswith(_BUFFERS)]
    return Found(config, dict(arrays), parameters)


def _infer(
    shapes: Mapping[str, Shape], given: Given, spell: Callable[[str], str]
) -> tuple[ModelConfig, bool]:
    """The architecture by keys and shapes, and whether a 1x1 convolution is among them."""
    steps: dict[int, dict[str, Shape]] = {}
    splits: dict[int, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        if layer := _LAYER.fullmatch(key):
            for kind, layers in ((_STEP, steps), (_SPLIT, splits)):
                if kind.fullmatch(layer[2]):
                    layers.setdefault(int(layer[1]), {})[layer[2]] = shape
    K, L = _count(sorted(steps), sorted(splits), shapes, spell)

    measured = [
        (i // (K + 2), name, shape)
        for i, step in sorted(steps.items())
        for name, shape in step.items()
    ]
    channels = image_channels(
        (level, shape[1] if name.startswith("actnorm") else shape[0])
        for level, name, shape in measured
        if (name.startswith("actnorm") and len(shape) == 4)
        or (name.startswith("invconv") and shape)
    )
    hidden = vote(
        shape[0] if name.endswith("weight") else shape[1]
        for _, name, shape in measured
        if re.match(r"block\.[02]\.", name) and len(shape) == 4
    )
    additive = vote(
        2 * shape[0] == 4 * 2**level * channels
        for level, name, shape in measured
        if name.startswith("block.4.") and shape
    )
    invconv = [
        (level, name != "invconv.weight") for level, name, _ in measured if "invconv" in name
    ]
    LU_decomposed, plain_levels = lu_levels(invconv, L)
    conditional = any(key.startswith("project_") for key in shapes)
    classes = vote(
        shape[-1] if key == "project_ycond.linear.weight" else shape[0]
        for key, shape in shapes.items()
        if (key.startswith("project_class.") or key == "project_ycond.linear.weight") and shape
    )
    prior_h = shapes.get("prior_h")
    if prior_h is None:
        raise GlowError(f"Key {spell('prior_h')!r} is missing: the file is not whole.")
    if len(prior_h) != 4:
        raise GlowError(f"Key {spell('prior_h')!r} has shape {prior_h}; it must have four axes.")
    config = ModelConfig(
        K=K,
        L=L,
        hidden_channels=hidden or 1,
        actnorm_scale=_actnorm_scale(given),
        flow_permutation="invconv" if invconv else _ask_permutation(given),
        flow_coupling="additive" if additive else "affine",
        LU_decomposed=LU_decomposed if invconv else True,
        learn_top=any(key.startswith("learn_top_fn.") for key in shapes),
        y_condition=conditional,
        n_bits=given.n_bits or 8,
        image_shape=(prior_h[2] * 2**L, prior_h[3] * 2**L, channels),
        y_classes=classes if conditional and classes else ModelConfig.y_classes,
        plain_levels=plain_levels if invconv else (),
    )
    return config, bool(invconv)


def _count(
    steps: list[int], splits: list[int], shapes: Mapping[str, Shape], spell: Callable[[str], str]
) -> tuple[int, int]:
    """K and L, from the numbers of the layers that are steps and splits, which leave no gaps."""

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
                    f"Key {key_of(layer)!r} has no place in the model that the others make: layers "
                    "before it are missing."
                )
        if not layers:
            raise GlowError(f"Key 'flow.layers.{start}.actnorm.bias' is missing: a level is empty.")
        counts.append(len(layers))
    return check_steps(counts, [key_of(start) for start in starts]), len(counts)


def _actnorm_scale(given: Given) -> float:
    scale = (given.hparams or {}).get("actnorm_scale", 1.0)
    if type(scale) not in (int, float):
        raise GlowError(f"hparams.json says actnorm_scale = {scale!r}; it must be a number.")
    return float(scale)


def _ask_permutation(given: Given) -> Literal["reverse"]:
    """The permutation of a file whose keys do not tell: reverse, or nothing that can be used."""
    said = given.flow_permutation or (given.hparams or {}).get("flow_permutation")
    if said is None:
        raise GlowError(
            "The file has no 1x1 convolutions, so its permutation is reverse or shuffle, which "
            "leave no keys: give --flow_permutation reverse if it is reverse."
        )
    if said == "shuffle":
        raise GlowError(
            "The file is of a model with flow_permutation shuffle, whose orders were drawn when it "
            "was built and never stored: nobody can restore it."
        )
    if said != "reverse":
        raise GlowError(
            f"flow_permutation is said to be {said}, but the weights have no 1x1 convolutions: "
            "keys 'invconv.*' are missing."
        )
    return "reverse"
