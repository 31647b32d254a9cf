"""The configuration to plain JSON values, and back."""

import dataclasses
import math
from types import UnionType
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

from glow_jax.config.checks import brief
from glow_jax.config.tree import Config
from glow_jax.errors import GlowError

_T = TypeVar("_T")
# No number of a configuration needs more than 63 bits.
_TOO_LARGE = 2**63


def to_json(config: Config) -> dict[str, object]:
    """The configuration as plain values."""
    return dataclasses.asdict(config)


def from_json(values: object) -> Config:
    """The configuration from plain values. Absent fields, as in older folders, take their defaults.

    Raises:
        GlowError: a value is unknown, of the wrong type or out of range.
    """
    return build(Config, values, "hparams")


def build(kind: type[_T], values: object, where: str) -> _T:
    """A dataclass from plain values; absent fields take their defaults.

    Args:
        kind: the dataclass.
        values: what JSON holds.
        where: what messages call the values.

    Raises:
        GlowError: a value is unknown, missing, of the wrong type or out of range.
    """
    if not isinstance(values, dict):
        raise GlowError(f"{where} is {brief(values)}; it must be an object with named fields.")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise GlowError(f"{where} has a field {brief(unknown[0])} that glow_jax does not know.")
    missing = [name for name in hints if name not in values and _is_required(kind, name)]
    if missing:
        raise GlowError(f"{where} has no field {missing[0]}.")
    built = {
        name: build(hints[name], value, f"{where}.{name}")
        if dataclasses.is_dataclass(hints[name])
        else _checked(hints[name], value, f"{where}.{name}")
        for name, value in values.items()
    }
    return kind(**built)


def _checked(hint: object, value: object, where: str) -> object:
    """`value` as the type `hint`. JSON may write 1.0 as 1, and turns a tuple into a list."""
    origin, arguments = get_origin(hint), get_args(hint)
    if _is_too_large(value):
        raise GlowError(f"{where} is {brief(value)}, which is too large.")
    if type(value) is float and not math.isfinite(value):
        raise GlowError(f"{where} is {value}; it must be finite.")
    if hint is float and type(value) is int:
        return float(value)
    if origin is Literal and type(value) is str and value in arguments:
        return value
    if origin is UnionType and any(type(value) is argument for argument in arguments):
        return value
    if origin is tuple and isinstance(value, list):
        fits = arguments[-1] is Ellipsis or len(arguments) == len(value)
        if fits and get_origin(arguments[0]) in (tuple, UnionType):
            return tuple(_checked(arguments[0], item, where) for item in value)
        if fits and all(type(item) is arguments[0] and not _is_too_large(item) for item in value):
            return tuple(value)
    if type(value) is hint:
        return value
    raise GlowError(f"{where} is {brief(value)}; it must be {getattr(hint, '__name__', hint)}.")


def _is_too_large(value: object) -> bool:
    return type(value) is int and abs(value) >= _TOO_LARGE


def _is_required(kind: type, name: str) -> bool:
    entry = next(entry for entry in dataclasses.fields(kind) if entry.name == name)
    return entry.default is entry.default_factory is dataclasses.MISSING
