"""The layouts in which Glow weights are passed around, each translated into Glow-PyTorch's."""

from collections.abc import Mapping

import numpy as np

from glow_jax.bridge.layouts import chaiyujin, rosinality, y0ast
from glow_jax.bridge.layouts.common import FlowPermutation, Found, Given
from glow_jax.errors import GlowError, shown

__all__ = ["BUFFERS", "FlowPermutation", "Found", "Given", "read_layout"]

_LAYOUTS = (y0ast, chaiyujin, rosinality)

BUFFERS = (*y0ast.BUFFERS, *rosinality.BUFFERS)
"""How the keys end, in any layout, whose values never change in training."""


def read_layout(arrays: Mapping[str, np.ndarray], given: Given) -> tuple[str, Found]:
    """Detect the layout of a state dict and translate it.

    Args:
        arrays: the state dict.
        given: what the user and `hparams.json` say about it.

    Returns:
        The layout's name, and the state dict's architecture and weights.

    Raises:
        GlowError: no layout matches, or the state dict does not fit its layout.
    """
    for layout in _LAYOUTS:
        if layout.matches(set(arrays)):
            return layout.NAME, layout.translate(arrays, given)
    names = ", ".join(layout.NAME for layout in _LAYOUTS)
    raise GlowError(
        f"These are not the weights of a Glow as {names} write them: the first key is "
        f"'{shown(next(iter(arrays)))}'."
    )
