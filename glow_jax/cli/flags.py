"""Flags made from dataclasses: one flag per field, with the field's docstring as its help."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar, get_type_hints

import tyro

from glow_jax.config.checks import NO_FLAG
from glow_jax.errors import GlowError
from glow_jax.files import expanded

_T = TypeVar("_T")
# Texts that may be paths; other paths have the type `Path`.
_PATHS = {"dataset", "dataroot", "ood", "output_dir", "saved_model", "saved_optimizer"}


def parse(
    kind: type[_T],
    arguments: Sequence[str] | None = None,
    default: _T | None = None,
    *,
    title: str | None = None,
) -> _T:
    """Parse the command line into a dataclass; flags may be spelt with dashes or underscores.

    Args:
        kind: the dataclass. Fields with the metadata `NO_FLAG` have no flag.
        arguments: the command line; by default that of `sys.argv`.
        default: the values of flags that are not given; by default the fields' own defaults.
        title: what the help says first; by default the docstring of the dataclass.

    Raises:
        GlowError: a flag is unknown, or it or the dataclass refuses a value.
        SystemExit: the help was asked for and printed.
    """
    flags = _flags_of(kind)
    defaults = {} if default is None else {"default": _as(flags, default)}
    config = (tyro.conf.OmitArgPrefixes,)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = tyro.cli(flags, args=arguments, description=title, config=config, **defaults)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise GlowError(_sentence(said.getvalue())) from None
    return _as(kind, parsed, _at_home)


def _sentence(framed: str) -> str:
    """The sentence in what tyro prints of a wrong command line: paragraphs with rules between them.

    They stand in a frame with a title, or below a title where no frame can be printed. The first
    paragraph says what is wrong. Flags that are spelt alike begin their own lines below.
    """
    lines = [line.strip("│ ") for line in framed.splitlines()]
    if not framed.startswith("╭"):
        lines = lines[2:]  # the title and its rule
    lines = [line for line in lines if line and not line.startswith(("╭", "╰"))]
    rules = [place for place, line in enumerate(lines) if set(line) <= {"─", "-"}]
    wrong = " ".join(" ".join(lines[: rules[0] if rules else None]).split()).rstrip(".")
    below = lines[rules[0] :] if rules else []
    similar = [line.split()[0] for line in below if line.startswith("--") and line[2] != "-"]
    wrong = wrong.split(" Got errors:")[0].rstrip(".")  # one for each type that it might have
    is_unknown = wrong.startswith("Unrecognized")
    hint = f"; perhaps you meant {' or '.join(similar)}" if similar and is_unknown else ""
    return f"{wrong}{hint}; --help lists the flags."


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
        GlowError: there is no such home.
    """
    if isinstance(value, tuple):
        return tuple(_at_home(name, item) for item in value)
    if isinstance(value, Path):
        return expanded(str(value), name)
    if not isinstance(value, str) or name not in _PATHS:
        return value
    kind, colon, rest = value.partition(":")
    if colon and kind.isidentifier():  # folder:~/pictures
        return f"{kind}:{_home_alone(name, rest)}"
    return _home_alone(name, value)


def _home_alone(name: str, path: str) -> str:
    """The text itself, where it does not begin with a home folder: it need not be a path."""
    return str(expanded(path, name)) if path.startswith("~") else path
