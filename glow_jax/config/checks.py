"""Checks that every section of the configuration runs on its values."""

from types import MappingProxyType
from typing import Literal, get_args, get_origin, get_type_hints

from glow_jax.errors import GlowError

# Metadata of a field without a flag: the data set or a converted checkpoint decides it.
NO_FLAG = MappingProxyType({"flag": False})


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raise `GlowError` unless `condition` holds for the value of the field `name`."""
    if not condition:
        raise GlowError(f"{name} is {value}; it must be {wanted}.")


def check_choices(section: object) -> None:
    """Raise `GlowError` if a field with named choices has another value."""
    for name, hint in get_type_hints(type(section)).items():
        value = getattr(section, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            require(False, name, repr(value), f"one of {', '.join(get_args(hint))}")
