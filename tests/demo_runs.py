"""Runs for the tests of the demo."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ood_runs import GREY, save_run, untrained

from glow_jax import ModelConfig
from glow_jax.config import DataConfig
from glow_jax.data import Dataset, load_dataset
from glow_jax.demo.studio import Studio, open_studio
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.runs import load_run

CONDITIONAL = dataclasses.replace(GREY, y_condition=True, y_classes=10)
# As converted from openai/glow.
EDGE_BIAS = dataclasses.replace(
    GREY,
    padding="edge_bias",
    actnorm_logs_factor=3.0,
    LU_decomposed=False,
    flow_coupling="affine",
)
KINDS: dict[str, ModelConfig] = {
    "plain": GREY,
    "conditional": CONDITIONAL,
    "edge_bias": EDGE_BIAS,
    "conditional_edge_bias": dataclasses.replace(
        EDGE_BIAS, y_condition=True, y_classes=10, classifier=False
    ),
    "variational": dataclasses.replace(GREY, dequantization="variational"),
    "one_level": dataclasses.replace(GREY, L=1),
}


def digits_run(folder: Path, kind: str, randomise: Callable[..., Any]) -> Path:
    """A run of the digits with random parameters; no two levels or classes are alike."""
    return save_run(folder, randomise(untrained(KINDS[kind]), scale=0.1))


# The parity of a digit, whether it is below 3, from 3 to 6, or above, and whether it has a loop.
GROUPS = ("even", "low", "middle", "high", "loop")
SEVERAL = dataclasses.replace(
    GREY, y_condition=True, y_classes=10 + len(GROUPS), multi_class=True, classifier=False
)


def with_groups(digits: np.ndarray) -> np.ndarray:
    """The class of each digit, and its groups: (N,) -> (N, 15), 0 and 1."""
    low, high = digits < 3, digits > 6
    groups = [digits % 2 == 0, low, ~low & ~high, high, np.isin(digits, (0, 6, 8, 9))]
    return np.column_stack([np.eye(10)[digits], *groups]).astype(np.uint8)


def several_run(folder: Path, randomise: Callable[..., Any], config: ModelConfig = SEVERAL) -> Path:
    """A run of the digits with labels of several classes at once, beside their file."""
    digits = load_dataset(DataConfig(dataset="digits"))
    arrays = {}
    for prefix, split in (("", digits.train), ("test_", digits.test)):
        part = split[np.arange(len(split))]
        arrays |= {f"{prefix}images": part.images, f"{prefix}labels": with_groups(part.labels)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / "groups.npz"
    np.savez(path, **arrays)
    return save_run(folder, randomise(untrained(config), scale=0.1), dataset=str(path))


def studio_of(folder: Path, *, images: bool = True) -> Studio:
    """A run that is ready, with its images or without."""
    run = load_run(folder)
    dataset: Dataset | None = dataset_of(run) if images else None
    return open_studio(run, dataset)


def images_of(studio: Studio) -> Dataset:
    """The images of a run that has them."""
    assert studio.dataset is not None
    return studio.dataset


def labels_of(studio: Studio, count: int) -> np.ndarray | None:
    """Labels of the first test images."""
    if not studio.model.config.y_condition or studio.dataset is None:
        return None
    labels = studio.dataset.test[np.arange(count)].labels
    if labels.ndim == 2:
        return labels.astype(np.float32)
    return np.eye(studio.model.config.y_classes, dtype=np.float32)[labels]
