"""The layouts in which Glow weights are passed around, each read into Glow-PyTorch's."""

from collections.abc import Mapping

import numpy as np

from glow_jax.bridge.layouts import chaiyujin, rosinality, y0ast
from glow_jax.bridge.layouts.common import Found, Given
from glow_jax.errors import GlowError

__all__ = ["Found", "Given", "read"]

_LAYOUTS = (y0ast, chaiyujin, rosinality)


def read(arrays: Mapping[str, np.ndarray], given: Given) -> tuple[str, Found]:
    """Detect the layout of a state dict and read it.

    Returns:
        The layout's name, and what it makes of the file.

    Raises:
        GlowError: no layout fits, or the file does not fit its layout.
    """
    for layout in _LAYOUTS:
        if layout.matches(set(arrays)):
            return layout.NAME, layout.read(arrays, given)
    names = ", ".join(layout.NAME for layout in _LAYOUTS)
    raise GlowError(
        f"These are not the weights of a Glow as {names} write them: the first key is "
        f"{next(iter(arrays))!r}."
    )
