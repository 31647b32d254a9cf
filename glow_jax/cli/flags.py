"""Flags made from dataclasses: one for each field, its docstring the help."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, TypeVar, get_type_hints

import tyro

from glow_jax.config.checks import NO_FLAG

_T = TypeVar("_T")


def parse(kind: type[_T], arguments: Sequence[str] | None = None, default: _T | None = None) -> _T:
    """Make a dataclass of the command line; flags may be spelt with dashes or underscores.

    Args:
        kind: the dataclass. Fields with the metadata `NO_FLAG` have no flag.
        arguments: the command line; `sys.argv` if left out.
        default: the values of flags that are not given; the fields' own if left out.

    Raises:
        GlowError: as the dataclass does for the values of its fields.
    """
    flags = _flags_of(kind)
    defaults = {} if default is None else {"default": _as(flags, default)}
    config = (tyro.conf.OmitArgPrefixes,)
    return _as(kind, tyro.cli(flags, args=arguments, config=config, **defaults))


def _flags_of(kind: type) -> type:
    """The dataclass as tyro is to see it: without checks, and without fields that have no flag.

    tyro would print an error of `__post_init__` in its own way, so that checks are made afterwards.
    """
    hints = get_type_hints(kind, include_extras=True)
    annotations: dict[str, object] = {}
    attributes: dict[str, object] = {"__annotations__": annotations, "__doc__": kind.__doc__}
    for entry in dataclasses.fields(kind):
        hint = hints[entry.name]
        make_default = entry.default_factory
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            hint = _flags_of(hint)
            if make_default is not dataclasses.MISSING:
                make_default = partial(_default_section, hint, make_default)
        annotations[entry.name] = hint
        if entry.metadata.items() >= NO_FLAG.items():
            annotations[entry.name] = Annotated[hint, tyro.conf.Suppress]
        if entry.default is not dataclasses.MISSING:
            attributes[entry.name] = entry.default
        elif make_default is not dataclasses.MISSING:
            attributes[entry.name] = dataclasses.field(default_factory=make_default)
    attributes["__post_init__"] = lambda self: None
    return dataclasses.dataclass(frozen=True)(type(kind.__name__, (kind,), attributes))


def _default_section(flags: type[_T], make: Callable[[], object]) -> _T:
    """A section's default, of the type that tyro expects of it."""
    return _as(flags, make())


def _as(kind: type[_T], other: object) -> _T:
    """The values of a dataclass in another one of the same fields, which checks them."""
    values: dict[str, object] = {}
    for name, hint in get_type_hints(kind).items():
        value = getattr(other, name)
        is_section = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        values[name] = _as(hint, value) if is_section else value
    return kind(**values)
