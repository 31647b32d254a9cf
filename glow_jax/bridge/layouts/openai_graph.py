"""Which constants of a frozen graph are weights of openai/glow; the others are of operations."""

import re
from collections.abc import Collection, Mapping

from glow_jax.bridge.layouts.openai import ENDINGS
from glow_jax.bridge.reading.variables import Variable
from glow_jax.errors import GlowError, shown

# The last part of the name that TensorFlow itself gives a constant.
_OF_AN_OPERATION = re.compile(
    r"(?i)(const|x|y|\d+|paddings|stack|(reduction_)?indices_?|.*(shape|perm|axis|value))(_\d+)?"
)
# Of the edge bias: its channel for images of one size.
_MASK = re.compile(r"model/(\d+/\d+/f1/l_\w+|pool\d+/conv|prior/p)/Const(_\d+)?")
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("int32", "int64")


def find_weights(constants: Mapping[str, Variable], read: Collection[str]) -> list[str]:
    """The constants of a frozen graph that are a model's weights, known or not.

    The nodes that read variables tell. Where some are lost, whatever may be a weight counts as one.

    Args:
        constants: the constants by name.
        read: the names of the variables that nodes read.

    Raises:
        GlowError: the graph has lost a variable of the model.
    """
    lost = [name for name in read if name.startswith("model/") and name not in constants]
    if lost:
        more = f", and {len(lost) - 1} more are" if len(lost) > 1 else ""
        raise GlowError(
            f"The graph reads the variable '{shown(min(lost))}', which is not in it{more}: it is "
            "not frozen, or constants were taken out of it."
        )
    is_whole = bool(read) and all(name in read for name in constants if _ending(name) in ENDINGS)
    return [
        name
        for name, constant in constants.items()
        if name in read or not (is_whole or _is_of_an_operation(name, constant))
    ]


def _ending(name: str) -> str:
    return name.rpartition("/")[2]


def _is_of_an_operation(name: str, constant: Variable) -> bool:
    """Whether a constant is certainly no weight: a number, shape, axis or border mask, say."""
    if _ending(name) in ENDINGS:
        return False
    is_called_so = bool(_OF_AN_OPERATION.fullmatch(_ending(name)))
    if not constant.shape or not name.startswith("model/"):
        return not constant.shape or constant.dtype != "float32" or is_called_so
    if constant.dtype in _FLOATS:
        axes = constant.shape
        return bool(_MASK.fullmatch(name)) and len(axes) == 4 and axes[0] == axes[3] == 1
    return constant.dtype not in _INTEGERS or is_called_so
