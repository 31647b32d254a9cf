"""The layout of chaiyujin/glow-pytorch: Glow-PyTorch's under other names, for images in [0, 1]."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from glow_jax.bridge.layouts import y0ast
from glow_jax.bridge.layouts.common import Found, Given
from glow_jax.bridge.reading.settings import stated
from glow_jax.errors import GlowError

NAME = "chaiyujin/glow-pytorch"

_NAMES = {
    "f.0.weight": "block.0.conv.weight",
    "f.0.actnorm.bias": "block.0.actnorm.bias",
    "f.0.actnorm.logs": "block.0.actnorm.logs",
    "f.2.weight": "block.2.conv.weight",
    "f.2.actnorm.bias": "block.2.actnorm.bias",
    "f.2.actnorm.logs": "block.2.actnorm.logs",
    "f.4.weight": "block.4.conv.weight",
    "f.4.bias": "block.4.conv.bias",
    "f.4.logs": "block.4.logs",
    "invconv.l": "invconv.lower",
    "invconv.u": "invconv.upper",
    "conv.weight": "conv.conv.weight",
    "conv.bias": "conv.conv.bias",
    "learn_top.weight": "learn_top_fn.conv.weight",
    "learn_top.bias": "learn_top_fn.conv.bias",
    "learn_top.logs": "learn_top_fn.logs",
    "project_ycond.weight": "project_ycond.linear.weight",
    "project_ycond.bias": "project_ycond.linear.bias",
    "project_class.weight": "project_class.linear.weight",
    "project_class.bias": "project_class.linear.bias",
}
_ORIGINALS = {name: original for original, name in _NAMES.items()}

_FIRST_BIAS = "flow.layers.1.actnorm.bias"


def matches(keys: set[str]) -> bool:
    """Whether a state dict is in this layout."""
    return any(re.match(r"flow\.layers\.\d+\.f\.", key) for key in keys)


def _rename(key: str, names: Mapping[str, str]) -> str:
    layer = re.match(r"flow\.layers\.\d+\.", key)
    prefix = layer[0] if layer else ""
    name = key.removeprefix(prefix)
    return prefix + names.get(name, name)


def translate(arrays: Mapping[str, np.ndarray], given: Given) -> Found:
    """Rename the keys and centre the images; see `y0ast.translate`.

    In this layout prior_h is a parameter, so its optimizers number it, and its first axis is the
    batch.
    """
    hparams = given.hparams or {}
    settings = hparams.get("Glow", hparams)
    if not isinstance(settings, Mapping):
        raise GlowError(f"{stated('Glow', settings)}; it must be an object.")
    given = dataclasses.replace(given, hparams=settings)
    renamed = {_rename(key, _NAMES): array for key, array in arrays.items()}
    prior_h = renamed.get("prior_h")
    if prior_h is not None and prior_h.ndim == 4:
        renamed["prior_h"] = prior_h[:1]
        if np.any(prior_h):
            raise GlowError("Key 'prior_h' is not zero, as every Glow's is.")
    found = y0ast.translate(renamed, given, lambda key: _rename(key, _ORIGINALS))
    # Its images are in [0, 1]; ours are centred, so the first bias takes the difference.
    bias = found.values[_FIRST_BIAS]
    found.values[_FIRST_BIAS] = bias + bias.dtype.type(0.5)
    numbered = {"prior_h", *(key for key in found.parameters or [])}
    parameters = [None if key == "prior_h" else key for key in renamed if key in numbered]
    return Found(found.config, found.values, parameters)
