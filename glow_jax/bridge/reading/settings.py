"""The settings of a training run, which other programs leave as JSON beside their weights."""

import json
from collections.abc import Mapping

from glow_jax.bridge.reading.budget import first_sentence
from glow_jax.errors import GlowError, shown

LARGEST = 2**20
"""The number of bytes above which a file or a line is no list of settings."""

_DEEPEST_JSON = 20
_MOST_DIGITS = 1000


def parse_settings(content: bytes, name: str) -> dict[str, object]:
    """The named values that a JSON object holds, without nulls.

    Raises:
        GlowError: it is no JSON object, too long, or nested too deep.
    """
    if len(content) > LARGEST:
        raise GlowError(f"{name} has more than {LARGEST} bytes: it is no list of settings.")
    try:
        values = json.loads(content, parse_int=_whole_number)
    except (ValueError, RecursionError) as error:
        raise GlowError(f"{name} is not valid JSON: {first_sentence(error)}.") from error
    if not isinstance(values, dict):
        raise GlowError(f"{name} holds no settings: it must be an object with named values.")
    if _depth(values) > _DEEPEST_JSON:
        raise GlowError(f"{name} is nested more than {_DEEPEST_JSON} deep: these are no settings.")
    return _without_nulls(values)


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def stated(name: str, value: object) -> str:
    """That hparams.json says something, as it may stand in a message.

    Args:
        name: of a setting.
        value: its value; text stands in quotes, so that 'true' is not taken for true.
    """
    said = f"'{shown(value)}'" if isinstance(value, str) else shown(value)
    return f"hparams.json says {name} = {said}"


def _depth(value: object) -> int:
    """How deep a value of JSON is nested; what is deeper than wanted is not followed."""
    layer, depth = [value], 0
    while layer and depth <= _DEEPEST_JSON:
        inner: list[object] = []
        for one in layer:
            inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        layer, depth = inner, depth + 1
    return depth


def _without_nulls(values: Mapping[str, object]) -> dict[str, object]:
    """Settings without those that are null, which is as good as not to be there."""
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
