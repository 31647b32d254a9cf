"""Flags made from dataclasses: one flag per field, with the field's docstring as its help."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar, get_type_hints

import tyro

from glow_jax.config.checks import NO_FLAG
from glow_jax.errors import GlowError

_T = TypeVar("_T")
# Texts that may be paths; other paths have the type `Path`.
_PATHS = {"dataset", "dataroot", "ood", "output_dir", "saved_model", "saved_optimizer"}


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
    return _as(kind, tyro.cli(flags, args=arguments, config=config, **defaults), _at_home)


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


def _as(
    kind: type[_T], other: object, change: Callable[[str, object], object] = lambda _, value: value
) -> _T:
    """Copy a dataclass's values into another one with the same fields, which checks them.

    Args:
        kind: the other dataclass.
        other: an instance of the first.
        change: what to make of each field's value.
    """
    values: dict[str, object] = {}
    for name, hint in get_type_hints(kind).items():
        value = getattr(other, name)
        is_section = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        values[name] = _as(hint, value, change) if is_section else change(name, value)
    return kind(**values)


def _at_home(name: str, value: object) -> object:
    """A flag's value with `~` as the user's home folder, where it is a path.

    Raises:
        GlowError: this user has no home.
    """
    if isinstance(value, tuple):
        return tuple(_at_home(name, item) for item in value)
    if isinstance(value, Path):
        return Path(_expanded(name, str(value)))
    if not isinstance(value, str) or name not in _PATHS:
        return value
    kind, colon, rest = value.partition(":")
    if colon and kind.isidentifier():  # folder:~/pictures
        return f"{kind}:{_expanded(name, rest)}"
    return _expanded(name, value)


def _expanded(name: str, path: str) -> str:
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise GlowError(
            f"{name} is {path}, but this user has no home folder: write the path out."
        ) from None
