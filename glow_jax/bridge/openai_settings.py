"""The settings of openai/glow, line 1 of its `train.txt`, as ours."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from glow_jax.bridge.layouts.openai import NAME
from glow_jax.config import Config, ModelConfig, from_json
from glow_jax.errors import GlowError, shown

_PERMUTATIONS = {"reverse": 0, "shuffle": 1, "invconv": 2}
_COUPLINGS = {"additive": 0, "affine": 1}
# Their problems whose images the catalogue has; an LSUN category is added.
_DATASETS = {
    "cifar10": "cifar10",
    "imagenet-oord": "downsampled_imagenet",
    "celeba": "celeb_a_hq",
    "lsun": "lsun",
    "lsun_realnvp": "lsun",
}
_LSUN = ("bedroom", "bridge", "church_outdoor", "classroom", "conference_room", "dining_room")
_LSUN += ("kitchen", "living_room", "restaurant", "tower")
_LARGEST_BATCH = 2**20
_MOST_IMAGES = 2**40
_LARGEST = 1e6
# Our flags for what no variable tells, with their names, and the largest values.
_NAMES = {"image_size": "image_size", "n_bits": "n_bits_x", "y_weight": "weight_y"}
_MOST = {"image_size": 2**14, "n_bits": 8}
# Their defaults; an epoch of 50,000 images in batches of 64 has 782 updates.
_TRAINING = {"lr": 1e-3, "epochs_warmup": 10.0, "polyak_epochs": 1.0, "train_its": 782.0}


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
    settings: Mapping[str, object] | None,
    problem: str | None,
    given: Mapping[str, float | None],
    notes: list[str],
) -> Needed:
    """Image size, bits and the weight of the classification loss, by flags or settings.

    Args:
        settings: line 1 of `train.txt`; None if there is none.
        problem: why there is none.
        given: the flags `image_size`, `n_bits` and `y_weight`; None where not given.
        notes: takes a sentence for each setting that cannot be and is not needed.

    Raises:
        GlowError: one is not known, out of range, or the flags contradict the settings.
    """
    said = settings or {}
    values = {flag: _settle(flag, said, given[flag], notes) for flag in _NAMES}
    missing = [flag for flag in ("image_size", "n_bits") if values[flag] is None]
    if missing:
        asked = {"image_size": "--image_size 32", "n_bits": "--n_bits 8"}
        why = f": {problem.rstrip('.')}" if problem else ""
        raise GlowError(
            f"Neither its variables nor its settings tell {' and '.join(missing)}{why}; give, for "
            f"example, {' '.join(asked[flag] for flag in missing)}."
        )
    for flag, value in values.items():
        if value is not None and (wanted := _fault(flag, value)):
            raise GlowError(f"--{flag} is {shown(value)}; it must be {wanted}.")
    return Needed(int(values["image_size"] or 0), int(values["n_bits"] or 0), values["y_weight"])


def _settle(
    flag: str, settings: Mapping[str, object], wanted: float | None, notes: list[str]
) -> float | None:
    """The value of a flag, or what the settings say if it is not given."""
    name = _NAMES[flag]
    if (said := settings.get(name)) is None:
        return wanted
    if (fault := _fault(flag, said)) or not isinstance(said, int | float):
        sentence = f"Its settings say {name} = {_spelt(said)}; it must be {fault}."
        if wanted is None and flag != "y_weight":  # which a model without a classifier lacks
            raise GlowError(sentence)
        notes.append(f"{sentence} It is not used.")
        return wanted
    # Their cross entropy is in bits, ours in nats.
    value = said / math.log(2) if flag == "y_weight" else said
    if wanted is not None and not math.isclose(value, wanted):
        ours = f", which is {value:.6g} in nats (divided by log 2)" if flag == "y_weight" else ""
        raise GlowError(
            f"--{flag} is {shown(wanted)}, but its settings say {name} = {shown(said)}{ours}: "
            "leave the flag out."
        )
    return value if wanted is None else wanted


def _fault(flag: str, value: object) -> str | None:
    """What a value would have to be that cannot be; None if it can."""
    if flag == "y_weight":
        return None if _is_number(value) else f"a number from 0 to {_LARGEST:g}"
    most = _MOST[flag]
    return None if _is_whole(value, most) else f"a whole number from 1 to {most}"


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that may be worked with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= _LARGEST


def _is_whole(value: object, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _spelt(value: object) -> str:
    """A setting as JSON has it, in which text is no number."""
    return shown(json.dumps(value) if isinstance(value, str) else value)


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
            f"Its settings say extra_invertible = {_spelt(settings['extra_invertible'])}: a 1x1 "
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
    if settings.get("flow_permutation") == 1 and model.flow_permutation == "reverse":
        raise GlowError(
            "Its settings say flow_permutation = 1, shuffled channels, but the variables of their "
            "orders, such as 'model/0/0/shuffle/indices', are missing: nothing else tells them."
        )
    for name, value in found.items():
        if name in settings and settings[name] != value:
            raise GlowError(
                f"Its settings say {name} = {_spelt(settings[name])}, but its variables have "
                f"{name} = {value}: they belong to another model."
            )
    weight = settings.get("weight_y")
    can_tell = model.y_condition and not is_graph and _is_number(weight)
    if can_tell and bool(weight) != model.classifier:
        raise GlowError(
            f"Its settings say weight_y = {shown(weight)}, but its variables have "
            f"{'a' if model.classifier else 'no'} classifier: they belong to another model."
        )


def build_config(
    model: ModelConfig,
    settings: Mapping[str, object] | None,
    y_weight: float | None,
    notes: list[str],
) -> Config:
    """The configuration of a run that goes on as theirs would.

    Settings that are missing take our defaults, but those of the optimizer and of the average,
    which take theirs. So do settings of the training that cannot be: the weights do not need them.

    Args:
        model: the architecture.
        settings: line 1 of `train.txt`; None if there is none.
        y_weight: weight of the classification loss; None for the default.
        notes: takes a sentence for each setting that cannot be.
    """
    said = settings or {}
    numbers = {name: _number(said, name, notes) for name in _TRAINING}
    optimizer: dict[str, object] = {
        "optimizer": "openai_adamax",
        "lr": numbers["lr"],
        "warmup": numbers["epochs_warmup"],
        "polyak_epochs": numbers["polyak_epochs"],
    }
    updates = numbers["train_its"] * numbers["polyak_epochs"]
    if updates > 1:
        optimizer["ema_decay"] = 1 - 1 / updates
    training: dict[str, object] = {}
    if (batch := _batch_size(said, notes)) is not None:
        training["batch_size"] = batch
    if y_weight is not None:
        training["y_weight"] = y_weight
    data: dict[str, object] = {"image_size": model.image_shape[0]}
    if dataset := dataset_of(said):
        data["dataset"] = dataset
    config = from_json({"optimizer": optimizer, "training": training, "data": data})
    return Config(
        model=model, optimizer=config.optimizer, training=config.training, data=config.data
    )


def what_differs(settings: Mapping[str, object]) -> list[str]:
    """What a run that goes on does otherwise than their settings say, one sentence each."""
    ours = {"beta1": 0.9, "weight_decay": 1.0}
    notes = [
        f"Its settings say {name} = {_spelt(settings[name])}; training goes on with {value}."
        for name, value in ours.items()
        if name in settings and settings[name] != value
    ]
    if settings.get("problem") == "mnist":
        notes.append(
            "It was trained on MNIST, padded to 32 x 32 and repeated in three channels, which the "
            "catalogue does not have: give --dataset."
        )
    elif dataset_of(settings) is None:
        notes.append("Its settings do not name images that the catalogue has: give --dataset.")
    return notes


def dataset_of(settings: Mapping[str, object]) -> str | None:
    """Our name of the images it was trained on; None if the catalogue does not have them."""
    problem, category = settings.get("problem"), settings.get("category")
    name = _DATASETS.get(problem) if isinstance(problem, str) else None
    if name == "lsun":
        return f"lsun/{category}" if category in _LSUN else None
    return name


def _number(settings: Mapping[str, object], name: str, notes: list[str]) -> float:
    """A setting of the training, or its default where it is missing or cannot be."""
    default = _TRAINING[name]
    value = settings.get(name, default)
    if _is_number(value) and (value or name == "epochs_warmup"):
        return float(value)
    notes.append(_left_out(name, value, f"{default:g}"))
    return default


def _batch_size(settings: Mapping[str, object], notes: list[str]) -> int | None:
    """The number of images in an update, on all their devices together; None for the default.

    A device takes `local_batch_train` images, which is `n_batch_train` for images of their anchor
    size. An epoch has n_train / (n_batch_train * devices) updates, rounded up.
    """
    for_anchor = settings.get("n_batch_train")
    if for_anchor is None:
        return None
    local = settings.get("local_batch_train")
    images, updates = settings.get("n_train"), settings.get("train_its")
    if not _is_whole(for_anchor, _LARGEST_BATCH):
        notes.append(_left_out("n_batch_train", for_anchor, "the default"))
        return None
    size = local if _is_whole(local, _LARGEST_BATCH) else for_anchor
    if _is_whole(images, _MOST_IMAGES) and _is_whole(updates, _MOST_IMAGES):
        size *= max(1, -(-images // (for_anchor * updates)))
    if size > _LARGEST_BATCH:
        notes.append(_left_out("n_train", images, "a batch of one device"))
        return for_anchor
    return size


def _left_out(name: str, value: object, instead: str) -> str:
    return f"Its settings say {name} = {_spelt(value)}, which cannot be; training takes {instead}."
