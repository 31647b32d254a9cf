"""Flags made from dataclasses: one flag per field, with the field's docstring as its help."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Annotated, TypeVar, get_type_hints

import tyro

from glow_jax.config.checks import NO_FLAG

_T = TypeVar("_T")


def parse(kind: type[_T], arguments: Sequence[str] | None = None, default: _T | None = None) -> _T:
    """Parse the command line into a dataclass; flags may be spelt with dashes or underscores.

    Args:
        kind: the dataclass. Fields with the metadata `NO_FLAG` have no flag.
        arguments: the command line; by default that of `sys.argv`.
        default: the values of flags that are not given; by default the fields' own defaults.

    Raises:
        GlowError: the dataclass refuses the value of a field.
    """
    flags = _flags_of(kind)
    defaults = {} if default is None else {"default": _as(flags, default)}
    config = (tyro.conf.OmitArgPrefixes,)
    return _as(kind, tyro.cli(flags, args=arguments, config=config, **defaults))


def _flags_of(kind: type) -> type:
    """The dataclass as tyro should see it: without checks, and without fields that have no flag.

    The checks run afterwards, because tyro would print an error of `__post_init__` in its own way.
    """
    hints = get_type_hints(kind, include_extras=True)
    annotations: dict[str, object] = {}
    attributes: dict[str, object] = {"__annotations__": annotations, "__doc__": kind.__doc__}
    for entry in dataclasses.fields(kind):
        hint = hints[entry.name]
        is_section = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        section = _flags_of(hint) if is_section else None
        annotations[entry.name] = section or hint
        if entry.metadata.items() >= NO_FLAG.items():
            annotations[entry.name] = Annotated[hint, tyro.conf.Suppress]
        if entry.default is not dataclasses.MISSING:
            attributes[entry.name] = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            make = entry.default_factory
            if section is not None:  # else tyro asks which of the two classes is meant
                make = partial(_as, section, make())
            attributes[entry.name] = dataclasses.field(default_factory=make)
    attributes["__post_init__"] = lambda self: None
    return dataclasses.dataclass(frozen=True)(type(kind.__name__, (kind,), attributes))


def _as(kind: type[_T], other: object) -> _T:
    """Copy a dataclass's values into another one with the same fields, which checks them."""
    values: dict[str, object] = {}
    for name, hint in get_type_hints(kind).items():
        value = getattr(other, name)
        is_section = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        values[name] = _as(hint, value) if is_section else value
    return kind(**values)
