"""The settings of openai/glow, line 1 of its `train.txt`, as ours."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from glow_jax.bridge.layouts.openai import NAME
from glow_jax.config import Config, ModelConfig, from_json
from glow_jax.errors import GlowError, shown

_PERMUTATIONS = {"reverse": 0, "shuffle": 1, "invconv": 2}
_COUPLINGS = {"additive": 0, "affine": 1}
# Their problems whose images the catalogue has; an LSUN category is added.
_DATASETS = {
    "mnist": "mnist",
    "cifar10": "cifar10",
    "imagenet-oord": "downsampled_imagenet",
    "celeba": "celeb_a_hq",
    "lsun": "lsun",
    "lsun_realnvp": "lsun",
}
_LARGEST_BATCH = 2**20
# In an epoch of their default settings: 50,000 images in batches of 64.
_USUAL_UPDATES = 782
_LARGEST = 1e6


@dataclass(frozen=True)
class Needed:
    """What no variable tells.

    Attributes:
        image_size: height and width in pixels.
        n_bits: bits kept of each pixel.
        y_weight: weight of the classification loss, in nats; None if nothing says.
    """

    image_size: int
    n_bits: int
    y_weight: float | None


def needed(
    settings: Mapping[str, object] | None, problem: str | None, given: Mapping[str, float | None]
) -> Needed:
    """Image size, bits and the weight of the classification loss, by flags or settings.

    Args:
        settings: line 1 of `train.txt`; None if there is none.
        problem: why there is none.
        given: the flags `image_size`, `n_bits` and `y_weight`; None where not given.

    Raises:
        GlowError: one is not known, out of range, or the flags contradict the settings.
    """
    theirs = {"image_size": "image_size", "n_bits": "n_bits_x", "y_weight": "weight_y"}
    values: dict[str, float | None] = {}
    for flag, name in theirs.items():
        said = None if settings is None else settings.get(name)
        if said is not None and (isinstance(said, bool) or not isinstance(said, int | float)):
            raise GlowError(f"Its settings say {name} = {shown(said)}; it must be a number.")
        # Their cross entropy is in bits, ours in nats.
        value = said / math.log(2) if said is not None and flag == "y_weight" else said
        wanted = given[flag]
        if value is not None and wanted is not None and not math.isclose(value, wanted):
            raise GlowError(
                f"--{flag} is {wanted}, but its settings say {name} = {shown(said)}: leave the "
                "flag out."
            )
        values[flag] = value if wanted is None else wanted
    missing = [flag for flag in ("image_size", "n_bits") if values[flag] is None]
    if missing:
        asked = {"image_size": "--image_size 32", "n_bits": "--n_bits 8"}
        why = f": {problem.rstrip('.')}" if problem else ""
        raise GlowError(
            f"Neither its variables nor its settings tell {' and '.join(missing)}{why}; give, for "
            f"example, {' '.join(asked[flag] for flag in missing)}."
        )
    _check_whole("image_size", values["image_size"], 2**14)
    _check_whole("n_bits", values["n_bits"], 8)
    weight = values["y_weight"]
    if weight is not None and not 0 <= weight <= _LARGEST:
        raise GlowError(f"y_weight is {shown(weight)}; it must be from 0 to {_LARGEST:g}.")
    return Needed(int(values["image_size"] or 0), int(values["n_bits"] or 0), weight)


def _check_whole(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise GlowError(f"{name} is {shown(value)}; it must be a whole number from 1 to {most}.")


def check_settings(settings: Mapping[str, object], model: ModelConfig, *, is_graph: bool) -> None:
    """Compare the architecture in the variables with the settings.

    Args:
        settings: line 1 of `train.txt`; keys that are not known are ignored.
        model: the architecture by names and shapes.
        is_graph: whether the variables are a frozen graph's, which has no classifier.

    Raises:
        GlowError: they contradict each other, or the settings ask for what the public code lacks.
    """
    if settings.get("extra_invertible"):
        raise GlowError(
            f"Its settings say extra_invertible = {shown(settings['extra_invertible'])}: a 1x1 "
            f"convolution after each level, which is not in the public code of {NAME}."
        )
    found: dict[str, object] = {
        "depth": model.K,
        "n_levels": model.L,
        "width": model.hidden_channels,
        "flow_permutation": _PERMUTATIONS[model.flow_permutation],
        "flow_coupling": _COUPLINGS[model.flow_coupling],
        "learntop": model.learn_top,
        "ycond": model.y_condition,
    }
    if model.y_condition:
        found["n_y"] = model.y_classes
    for name, value in found.items():
        if name in settings and settings[name] != value:
            raise GlowError(
                f"Its settings say {name} = {shown(settings[name])}, but its variables have "
                f"{name} = {value}: they belong to another model."
            )
    weight = settings.get("weight_y")
    can_tell = model.y_condition and not is_graph and weight is not None
    if can_tell and bool(weight) != model.classifier:
        raise GlowError(
            f"Its settings say weight_y = {shown(weight)}, but its variables have "
            f"{'a' if model.classifier else 'no'} classifier: they belong to another model."
        )


def build_config(
    model: ModelConfig, settings: Mapping[str, object] | None, y_weight: float | None
) -> Config:
    """The configuration of a run that goes on as theirs would.

    Settings that are missing take our defaults, but those of the optimizer and of the average,
    which take theirs.

    Args:
        model: the architecture.
        settings: line 1 of `train.txt`; None if there is none.
        y_weight: weight of the classification loss; None for the default.

    Raises:
        GlowError: a setting is out of range.
    """
    said = settings or {}
    polyak_epochs = _number(said, "polyak_epochs", 1)
    optimizer: dict[str, object] = {
        "optimizer": "openai_adamax",
        "lr": _number(said, "lr", 1e-3),
        "warmup": _number(said, "epochs_warmup", 10),
        "polyak_epochs": polyak_epochs,
    }
    updates = _number(said, "train_its", _USUAL_UPDATES)
    if updates * polyak_epochs > 1:
        optimizer["ema_decay"] = 1 - 1 / (updates * polyak_epochs)
    training: dict[str, object] = {}
    if (batch := said.get("n_batch_train")) is not None:
        _check_whole("n_batch_train", batch, _LARGEST_BATCH)
        training["batch_size"] = batch
    if y_weight is not None:
        training["y_weight"] = y_weight
    data: dict[str, object] = {"image_size": model.image_shape[0]}
    if dataset := _dataset(said):
        data["dataset"] = dataset
    config = from_json({"optimizer": optimizer, "training": training, "data": data})
    return Config(
        model=model, optimizer=config.optimizer, training=config.training, data=config.data
    )


def what_differs(settings: Mapping[str, object]) -> list[str]:
    """What a run that goes on does otherwise than their settings say, one sentence each."""
    ours = {"beta1": 0.9, "weight_decay": 1.0}
    notes = [
        f"Its settings say {name} = {shown(settings[name])}; training goes on with {value}."
        for name, value in ours.items()
        if name in settings and settings[name] != value
    ]
    if _dataset(settings) is None:
        notes.append("Its settings do not name images that the catalogue has: give --dataset.")
    return notes


def _number(settings: Mapping[str, object], name: str, default: float) -> float:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GlowError(f"Its settings say {name} = {shown(value)}; it must be a number.")
    if not 0 <= value <= _LARGEST:
        raise GlowError(
            f"Its settings say {name} = {shown(value)}; it must be from 0 to {_LARGEST:g}."
        )
    return float(value)


def _dataset(settings: Mapping[str, object]) -> str | None:
    """Our name of the images it was trained on; None if the catalogue does not have them."""
    problem, category = settings.get("problem"), settings.get("category")
    name = _DATASETS.get(problem) if isinstance(problem, str) else None
    if name == "lsun" and isinstance(category, str) and re.fullmatch("[a-z_]{1,30}", category):
        return f"lsun/{category}"
    return name
