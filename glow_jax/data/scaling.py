"""Values of any depth to 8 bits: scaled by their type, never clipped."""

from collections.abc import Callable

import numpy as np

from glow_jax.errors import GlowError

Scale = Callable[[np.ndarray], np.ndarray]
"""Makes uint8 of values, of the same shape."""

# Values that are scaled at once, so that what lies between takes little memory.
_CHUNK = 1 << 20


def to_bytes(values: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Scale the values of a picture to 0..255; arguments and errors as for `scale_of`.

    Returns:
        uint8, of the same shape.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "biuf":
        raise GlowError(f"values of type {values.dtype} are no pixels")
    scale = scale_of(values.dtype, values.min(), values.max(), bits)
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _CHUNK // max(1, values[:1].size))
    for first in range(0, len(values), rows):
        scaled[first : first + rows] = scale(values[first : first + rows])
    return scaled


def scale_of(
    kind: np.dtype,
    lowest: np.generic,
    highest: np.generic,
    bits: int | None = None,
    signed: bool | None = None,
) -> Scale:
    """How the values of a picture become 0..255.

    It depends on their type alone, so that all pictures of a folder have one scale: of 16 bits the
    upper 8 are kept, and 1 is the white of floating-point values. The values only decide whether
    the picture can be of that scale.

    Args:
        kind: any integer or floating-point type.
        lowest: the smallest value.
        highest: the largest value.
        bits: how many of a value's bits the file says it uses; all of the type's if left out.
        signed: whether the file says that values may be negative; as the type if left out.

    Raises:
        GlowError: nothing says how bright the values are.
    """
    if kind.kind == "b":
        return lambda values: values.astype(np.uint8) * np.uint8(255)
    if kind.kind == "f":
        return _of_floats(float(lowest), float(highest))
    bits = min(bits or kind.itemsize * 8, kind.itemsize * 8)
    signed = kind.kind == "i" if signed is None else signed
    if bits > 16:
        _check_wide(int(lowest), int(highest), bits)
        bits, signed = 16, False
    shift, zero = max(bits - 8, 0), 128 if signed else 0
    if (int(lowest) >> shift) + zero < 0 or (int(highest) >> shift) + zero > 255:
        raise GlowError(f"values of {lowest}..{highest} do not fit into {bits} bits")
    return lambda values: ((values >> shift).astype(np.int16) + zero).astype(np.uint8)


def _of_floats(lowest: float, highest: float) -> Scale:
    # Less than half a level beyond is rounded to a level that exists: nothing is clipped.
    if not (lowest * 255 > -0.49 and highest * 255 < 255.49):
        raise GlowError(
            f"its floating-point values lie in {lowest:g}..{highest:g}, and only 0..1 says how "
            "bright they are: divide all pictures by one number, or save whole numbers of 8 or 16 "
            "bits"
        )
    return lambda values: np.rint(values * np.float32(255)).astype(np.uint8)


def _check_wide(lowest: int, highest: int, bits: int) -> None:
    """Refuse whole numbers of more than 16 bits, unless they can only be meant as 16.

    Programs that have no type of 16 bits save such pictures in 32.
    """
    if lowest < 0 or highest >= 2**16:
        where = "outside 0..65535"
    elif 0 < highest < 2**8:
        where = f"in {lowest}..{highest}, which may be of 8 or of 16 bits"
    else:
        return
    raise GlowError(f"its whole numbers of {bits} bits lie {where}: save them as 8 or 16 bits")
