"""Checks that every section of the configuration runs on its values."""

import reprlib
from types import MappingProxyType
from typing import Literal, get_args, get_origin, get_type_hints

from glow_jax.errors import GlowError

# Metadata of a field without a flag: the data set or a converted checkpoint decides it.
NO_FLAG = MappingProxyType({"flag": False})


_LONGEST = 60


def brief(value: object) -> str:
    """A value as a message shows it: written as in Python, and cut off where it is long."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return f"a number of more than {_LONGEST} digits"
    text = reprlib.repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= 2 * _LONGEST else f"{text[: 2 * _LONGEST]}..."


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raise `GlowError` unless `condition` holds for the value of the field `name`."""
    if not condition:
        raise GlowError(f"{name} is {_shown(value)}; it must be {wanted}.")


def _shown(value: object) -> object:
    return value if isinstance(value, str) and len(value) <= 2 * _LONGEST else brief(value)


def check_choices(section: object) -> None:
    """Raise `GlowError` if a field with named choices has another value."""
    for name, hint in get_type_hints(type(section)).items():
        value = getattr(section, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            require(False, name, repr(value), f"one of {', '.join(get_args(hint))}")
