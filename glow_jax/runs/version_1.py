"""Checkpoints of version 1: the same arrays under other names, one with another shape.

| version 1 | now |
|---|---|
| `model`: `params` and `buffers` apart | `model`: one tree |
| `levels.I.split.*` | `splits.I.*` |
| `conv_hidden.kernel`, (K, 1, 1, I, O) | (K, I, O) |

Arrays of such a checkpoint are read by their old names and put in their new places. Version 1 is no
longer written.
"""

Keys = tuple[str | int, ...]
"""The keys that lead to an array in a tree."""


def is_version_1(model: object) -> bool:
    """Whether the saved tree of a model is of version 1."""
    return isinstance(model, dict) and "params" in model


def name_in_version_1(keys: Keys) -> Keys:
    """The version 1 keys of a model's array, or of an optimizer's moment of that array."""
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
