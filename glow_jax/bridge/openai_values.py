"""Tensors of files of openai/glow, read in the shapes and kinds that an architecture gives them."""

from collections.abc import Mapping

import numpy as np

from glow_jax.bridge.layouts import openai
from glow_jax.bridge.layouts.common import Shape
from glow_jax.bridge.mapping import layout_shapes
from glow_jax.bridge.reading.openai_files import OpenaiFile
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, shown


def read_values(
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
        array = read_one(file, names[name], place.shape, "float32")
        if not np.all(np.isfinite(array)):
            raise GlowError(f"'{names[name]}' holds NaN or infinite values.")
        values[place.key] = openai.to_layout(array, place, shapes)
    return values


def read_one(file: OpenaiFile, name: str, shape: Shape, dtype: str) -> np.ndarray:
    """One tensor, whose declaration is compared before it is read."""
    declared = file.variables[name]
    if declared.shape != shape or declared.dtype != dtype:
        raise GlowError(
            f"'{shown(name)}' is {declared.dtype} of shape {shown(declared.shape)}; the other "
            f"variables make it {dtype} of shape {shape}."
        )
    return file.read(name)
