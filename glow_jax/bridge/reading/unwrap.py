"""The weights in what a training program saved: which of its dicts, under which prefix."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from glow_jax.bridge.reading.tensors import StoredTensor, described
from glow_jax.bridge.reading.unpickle import Foreign, Named
from glow_jax.errors import GlowError, shown

# Wrappers of PyTorch put these into the path of a key, wherever the wrapped module stands.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# How the keys of a Glow's steps begin in every layout.
_ROOT = re.compile(r"(?:^|\.)(?:flow\.layers|blocks)\.\d+\.")
_DEPTH = 4
_MOST_MODELS = 64
_MOST_NAMED = 8
_OPTIMIZERS = ("optimizer", "optim", "optimizer_state_dict", "optimizer_states", "optimizer_state")
_AVERAGES = {"ema", "swa", "avg", "average", "averaged", "shadow"}

Weights = dict[str, StoredTensor]


@dataclass(frozen=True)
class Reading:
    """One way to take a file's content as weights.

    Attributes:
        name: the keys and the prefix that lead to the weights, with dots between; "" for none.
        path: the keys alone.
        weights: the tensors, without prefixes, and without those of other readings.
        wrappers: the names that PyTorch's wrappers put into keys, and that are left out of them.
    """

    name: str
    path: tuple[str, ...]
    weights: Weights
    wrappers: list[str]

    @property
    def is_average(self) -> bool:
        """Whether its name says that these are averaged parameters."""
        return _is_average(self.name)


def is_optimizer(content: object) -> bool:
    """Whether this is the state dict of an optimizer."""
    return isinstance(content, dict) and {"state", "param_groups"} <= content.keys()


def find_weights(
    content: object, name: str, wanted: str | None, buffers: tuple[str, ...], notes: list[str]
) -> tuple[Reading, dict[str, object]]:
    """The weights in the content of a file.

    Args:
        content: what the file holds.
        name: the file's name, as it may stand in a message.
        wanted: which weights the user asks for, where there are several.
        buffers: how the keys end that are of no parameters; an average may lack them, and they are
            then those of another model in the file.
        notes: takes a sentence about what was unwrapped or filled in.

    Returns:
        The weights, and whatever else the content holds, by name.

    Raises:
        GlowError: there are no weights, or several and none is asked for.
    """
    readings = _readings(content, (), _DEPTH)
    if len(readings) > _MOST_MODELS:
        raise GlowError(f"{name} holds the weights of {len(readings)} models; give a file of one.")
    distinct = _distinct(readings)
    if not distinct:
        _refuse(content, name)
    reading = _choose(distinct, name, wanted)
    beside = _beside(content, reading, readings)
    if reading.name:
        notes.append(f"Its weights are taken from {shown(reading.name)!r}.")
    if reading.wrappers:
        wrappers = ", ".join(f"{wrapper}." for wrapper in reading.wrappers)
        notes.append(f"Its keys are read without {wrappers}")
    return _with_buffers(reading, distinct, buffers, notes), beside


def find_optimizer(content: object, name: str) -> tuple[str, Mapping[str, object]] | None:
    """The optimizer's state beside the weights, after its key; None if there is none.

    Raises:
        GlowError: there are several, or what should be one is none.
    """
    if not isinstance(content, dict):
        return None
    found = {}
    for key in _OPTIMIZERS:
        value = content.get(key)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if is_optimizer(value):
            found[key] = value
        elif isinstance(value, list) and len(value) > 1:
            raise GlowError(
                f"{name} holds {len(value)} optimizers' states, at {key!r}; a Glow has one."
            )
        elif value is not None and value not in ({}, []):
            raise GlowError(
                f"{name} holds no optimizer's state where it should, at {key!r}: it must have "
                "'state' and 'param_groups'."
            )
    if len(found) > 1:
        raise GlowError(f"{name} holds several optimizers' states: {', '.join(found)}.")
    return next(iter(found.items()), None)


def left_out(beside: Mapping[str, object], *, is_average: bool) -> str:
    """A sentence that names what a file holds and what is not converted.

    Args:
        beside: the values by their names; what only counts or describes is named last.
        is_average: whether the weights that are converted are an average.
    """
    of_another = ", which is not of the average" if is_average else ""
    texts: dict[str, int] = {}
    for name, value in beside.items():
        parts = value if isinstance(value, list) else [value]
        is_state = any(is_optimizer(part) for part in parts)
        kind = f" (an optimizer's state{of_another})" if is_state else ""
        is_large = isinstance(value, dict | list | tuple | StoredTensor)
        texts[f"{shown(name, 100)!r}{kind}"] = 0 if is_state else 1 if is_large else 2
    named = sorted(texts, key=texts.__getitem__)
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return f"Left out: {', '.join(named[:_MOST_NAMED])}{more}."


def _readings(content: object, path: tuple[str, ...], depth: int) -> list[Reading]:
    """The ways to take a dict, and the dicts in it, as the weights of a Glow."""
    if not isinstance(content, dict):
        return []
    tensors = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, StoredTensor)
    }
    readings = _by_prefix(tensors, path)
    if depth:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, dict):
                readings += _readings(value, (*path, key), depth - 1)
    return readings


def _beside(content: object, chosen: Reading, readings: list[Reading]) -> dict[str, object]:
    """What a content holds beside the chosen weights, by its name: other models by theirs."""
    model_of = {id(tensor): r.name for r in readings for tensor in r.weights.values()}
    model_of |= {id(tensor): chosen.name for tensor in chosen.weights.values()}
    same = {r.name for r in readings if len(_distinct([chosen, r])) == 1}
    found: dict[str, object] = {}
    for depth in range(len(chosen.path) + 1):
        path = chosen.path[: depth + 1]
        for key, value in content.items() if isinstance(content, dict) else ():
            name = ".".join([*path[:depth], shown(key)])
            if isinstance(value, StoredTensor):
                name = model_of.get(id(value), name)
            is_on_path = depth < len(path) and key == path[depth]
            if not (is_on_path or name in same or value is None or value in ({}, [], ())):
                found[name or "."] = value
        if depth < len(path):
            content = content[path[depth]] if isinstance(content, dict) else None
    return found


def _with_buffers(
    reading: Reading, readings: list[Reading], buffers: tuple[str, ...], notes: list[str]
) -> Reading:
    """A model that lacks buffers, with those of another model in the file that lacks nothing of it.

    Buffers never change in training: they are the same in all models of one file.
    """
    for other in readings:
        lacking = {
            key: tensor
            for key, tensor in other.weights.items()
            if key not in reading.weights and key.endswith(buffers)
        }
        if lacking and reading.weights.keys() < other.weights.keys():
            names = ", ".join(repr(shown(key)) for key in [*lacking][:3])
            more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
            notes.append(
                f"It lacks buffers, which training does not change: {names}{more} are those of "
                f"{shown(other.name) or '.'!r}."
            )
            return replace(reading, weights={**reading.weights, **lacking})
    return reading


def _by_prefix(tensors: Weights, path: tuple[str, ...]) -> list[Reading]:
    """A flat dict's weights, once for each prefix under which a Glow stands."""
    short = {key: ".".join(p for p in key.split(".") if p not in _WRAPPERS) for key in tensors}
    if len(set(short.values())) < len(short):  # the same key with and without a wrapper
        short = {key: key for key in tensors}
    prefixes: dict[str, None] = {}
    for key in short.values():
        if root := _ROOT.search(key):
            prefixes[key[: root.start() + (key[root.start()] == ".")]] = None
    if len(prefixes) > _MOST_MODELS:
        raise GlowError(
            f"The keys have {len(prefixes)} different prefixes: give a file of one model."
        )
    groups: dict[str, Weights] = {prefix: {} for prefix in prefixes}
    longest_first = sorted(prefixes, key=len, reverse=True)
    inside = []
    for key, tensor in tensors.items():
        prefix = next((p for p in longest_first if short[key].startswith(p)), None)
        if prefix is not None and key != "n_averaged":
            inside.append(key)
            groups[prefix][short[key].removeprefix(prefix)] = tensor
    # Some keys with a prefix and some without, none of them twice, are one model's.
    if len(groups) > 1 and sum(map(len, groups.values())) == len(set().union(*groups.values())):
        merged = {}
        for key in inside:
            prefix = next(p for p in longest_first if short[key].startswith(p))
            merged[short[key].removeprefix(prefix)] = tensors[key]
        groups = {"": merged}
    names = {prefix: ".".join([*path, prefix.rstrip(".")]).strip(".") for prefix in groups}
    wrappers = sorted(_WRAPPERS & {part for key in tensors for part in key.split(".")})
    if all(key == name for key, name in short.items()):
        wrappers = []
    return [Reading(names[prefix], path, group, wrappers) for prefix, group in groups.items()]


def _is_average(name: str) -> bool:
    return bool(_AVERAGES & {*re.split(r"[._]", name.lower())})


def _distinct(readings: list[Reading]) -> list[Reading]:
    """The readings, without those that hold another one's very tensors."""
    kept: list[Reading] = []
    for reading in readings:
        if not any(
            other.weights.keys() == reading.weights.keys()
            and all(other.weights[key].is_same(value) for key, value in reading.weights.items())
            for other in kept
        ):
            kept.append(reading)
    return kept


def _choose(readings: list[Reading], name: str, wanted: str | None) -> Reading:
    if wanted is not None:
        exact = [reading for reading in readings if (reading.name or ".") == wanted]
        fitting = exact or [r for r in readings if wanted in r.name.split(".")]
        if len(fitting) == 1:
            return fitting[0]
    elif len(readings) == 1:
        return readings[0]
    names = ", ".join(shown(reading.name) or "." for reading in readings[:8])
    if wanted is None:
        raise GlowError(
            f"{name} holds the weights of {len(readings)} models ({names}): say which by "
            f"--weights, for example --weights {shown(readings[0].name) or '.'}."
        )
    raise GlowError(
        f"--weights is {shown(wanted)}, but {name} holds {names}; give one of these, or leave "
        "--weights out if there is only one."
    )


def _refuse(content: object, name: str) -> None:
    """Say what a content without weights is.

    Raises:
        GlowError: always.
    """
    if is_optimizer(content):
        raise GlowError(
            f"{name} holds an optimizer's state and no weights; give the weights as FILE and this "
            "as --optimizer."
        )
    foreign = content
    if isinstance(content, dict) and content:
        foreign = next((v for v in content.values() if isinstance(v, Foreign | Named)), None)
    if isinstance(foreign, Foreign | Named):
        raise GlowError(
            f"{name} is refused: it would have to run {shown(foreign.name)} to be read, which "
            "weights never need; nothing in it was run: save the model's state_dict() instead."
        )
    if not isinstance(content, dict) or not content:
        raise GlowError(f"{name} holds no state dict, but {described(content)}.")
    key, value = next(iter(content.items()))
    if isinstance(value, StoredTensor):
        raise GlowError(
            f"{name} holds tensors, but not the weights of a Glow as y0ast, chaiyujin or "
            f"rosinality write them: the first key is '{shown(key)}'."
        )
    raise GlowError(
        f"{name} holds no state dict: its key '{shown(key)}' is {described(value)}, not a tensor."
    )
