"""Values of any depth to 8 bits: scaled, never clipped."""

import numpy as np

from glow_jax.errors import GlowError


def to_bytes(values: np.ndarray, bits: int = 16, signed: bool = False) -> np.ndarray:
    """Scale the values of a picture to 0..255.

    The scale is that of the type, not of the picture: 16 bits lose their lower 8. Floating-point
    values may lie in 0..1, in 0..255 or in 0..65535.

    Args:
        values: of any integer or floating-point type.
        bits: how many of a value's bits the file says it uses.
        signed: whether the file says that values may be negative.

    Returns:
        uint8, of the same shape.

    Raises:
        GlowError: they are no numbers of a known range.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f":
        return _from_floats(values)
    if values.dtype.kind not in "iu":
        raise GlowError(f"values of type {values.dtype} are no pixels")
    if values.dtype.itemsize < 4:  # as deep as the type says
        bits, signed = values.dtype.itemsize * 8, values.dtype.kind == "i"
    return _from_integers(values, bits, signed)


def _from_integers(values: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    lowest, highest = int(values.min()), int(values.max())
    if bits > 16 and lowest >= 0 and highest < 2**16:
        # Nobody fills 32 bits by pixels of a camera: a wide type that holds narrow values.
        bits, signed = (16, False) if highest > 255 else (8, False)
    if not signed and bits == 32 and lowest < 0:  # Pillow's only wide type has a sign
        values = values.astype(np.int64) % 2**32
    scaled = (values >> max(bits - 8, 0)).astype(np.int64) + (128 if signed else 0)
    if scaled.min() < 0 or scaled.max() > 255:
        raise GlowError(f"values of {lowest}..{highest} do not fit into {bits} bits")
    return scaled.astype(np.uint8)


def _from_floats(values: np.ndarray) -> np.ndarray:
    lowest, highest = float(values.min()), float(values.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)) or lowest < 0 or highest >= 2**16:
        raise GlowError(
            f"floating-point values of {lowest:g}..{highest:g} have no known range: save them in "
            "0..1, or as whole numbers"
        )
    if highest <= 1:
        return np.rint(values * 255).astype(np.uint8)
    return (values if highest < 256 else values / 256).astype(np.uint8)
