"""Values of controls, which come from a browser: anything may be in them."""

from collections.abc import Sequence

from glow_jax.errors import GlowError


def levels_from_0(levels: Sequence[int]) -> list[int]:
    """Levels counted from 1 as levels counted from 0."""
    return [whole_of(level, "The level") - 1 for level in levels]


def amounts_of(slots: Sequence[object]) -> dict[str, float]:
    """How far to go along each direction, from names and amounts in turn."""
    amounts: dict[str, float] = {}
    for name, amount in zip(slots[::2], slots[1::2], strict=True):
        far = number_of(amount, "The strength")
        if isinstance(name, str) and far:
            amounts[name] = amounts.get(name, 0) + far
    return amounts


def number_of(value: object, name: str) -> float:
    """A number.

    Raises:
        GlowError: it is none, or too large for any control.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise GlowError(f"{name} is no number: give one.")
    return float(value)


def whole_of(value: object, name: str) -> int:
    """A whole number.

    Raises:
        GlowError: it is none.
    """
    number = number_of(value, name) if not isinstance(value, int) else value
    if number != int(number):
        raise GlowError(f"{name} is {number:g}; it must be a whole number.")
    return int(number)
