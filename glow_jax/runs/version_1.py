"""Checkpoints of version 1: the same arrays under other names, one of them in another shape.

| version 1 | now |
|---|---|
| `model`: `params` and `buffers` apart | `model`: one tree |
| `levels.I.split.*` | `splits.I.*` |
| `conv_hidden.kernel`, (K, 1, 1, I, O) | (K, I, O) |

An array of such a checkpoint is asked for by its old name, and put in its new place. Nothing is
written in this version any more.
"""

Keys = tuple[str | int, ...]
"""The keys that lead to an array in a tree."""


def is_version_1(model: object) -> bool:
    """Whether the saved tree of a model is one of version 1."""
    return isinstance(model, dict) and "params" in model


def name_in_version_1(keys: Keys) -> Keys:
    """The keys in version 1 of an array of a model, or of an optimizer's moments of one."""
    if "splits" not in keys:
        return keys
    place = keys.index("splits")
    return (*keys[:place], "levels", keys[place + 1], "split", *keys[place + 2 :])


def shape_in_version_1(keys: Keys, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in version 1 of the array at `keys`, in a model or in an optimizer's moments."""
    # The keys of a moment end in the attribute that holds a variable's array.
    if (keys[:-1] if keys[-1] == "value" else keys)[-2:] == ("conv_hidden", "kernel"):
        return (*shape[:-2], 1, 1, *shape[-2:])
    return shape
