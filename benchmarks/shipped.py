"""Tables of the models in `models/`, from the files of their folders."""

import json
from collections.abc import Mapping

from figures import FOLDER, REPOSITORY, markdown

from glow_jax.config import Config
from glow_jax.hub import read_config
from glow_jax.publishing.results import Measured, measured_of

MODELS: Mapping[str, str] = {
    "fashion_mnist": "garments",
    "fashion_mnist_classes": "garments of a class",
    "fashion_mnist_groups": "garments of a class and of a group of classes",
    "mnist": "digits",
}
"""The folders, and what they draw."""

GROUPS = ("top", "trousers", "dress", "shoe", "bag")
"""Of `models/prepare.py`, whose labels follow those of the classes."""

_EPOCHS_APART = 3


def models() -> str:
    """What each model is, and its figures on its test images."""
    rows = []
    for name, draws in MODELS.items():
        folder = REPOSITORY / "models" / name
        config, found = read_config(folder), _measured(name)
        size = (folder / "model.safetensors").stat().st_size / 1e6
        rows.append(
            [
                f"`{name}`",
                draws,
                _architecture(config),
                f"{size:.1f} MB",
                f"{found.bits_per_dim:.3f} +- {found.standard_error:.3f}",
                _labels(found),
            ]
        )
    columns = ("folder", "draws", "K, L, hidden, coupling", "size", "bits/dim", "labels")
    return markdown(columns, rows)


def _measured(name: str) -> Measured:
    results = json.loads((REPOSITORY / "models" / name / "config.json").read_text())["results"]
    found = measured_of(results)
    assert found is not None, f"models/{name} has no results"
    return found


def _architecture(config: Config) -> str:
    model = config.model
    return f"{model.K}, {model.L}, {model.hidden_channels}, {model.flow_coupling}"


def _labels(found: Measured) -> str:
    accuracies = [f"{value:.3f} by the {rule}" for rule, value, _ in found.accuracies]
    areas = [value for value in found.label_auroc if value is not None]
    if areas:
        mean = sum(areas) / len(areas)
        return f"AUROC {mean:.3f} on average, {min(areas):.3f} at the lowest"
    return f"accuracy {' and '.join(accuracies)}" if accuracies else ""


def labels() -> str:
    """How well the multi-hot model tells each label."""
    folder = REPOSITORY / "models"
    classes = json.loads((folder / "fashion_mnist_classes/config.json").read_text())["images"]
    names = [*classes["class_names"], *GROUPS]
    areas = _measured("fashion_mnist_groups").label_auroc
    rows = [
        (number, name, f"{area:.3f}")
        for number, (name, area) in enumerate(zip(names, areas, strict=True))
    ]
    return markdown(["number", "label", "AUROC"], rows)


def epochs() -> str:
    """Bits/dim of the garments model over its epochs, of images held out and of test images.

    Its training has two parts: the second starts from the weights of the first.
    """
    parts = (
        FOLDER / "fashion_mnist_first.jsonl",
        REPOSITORY / "models/fashion_mnist/metrics.jsonl",
    )
    rows, before = [], 0
    for part in parts:
        of_part = [json.loads(line) for line in part.read_text().splitlines()]
        chosen = of_part[_EPOCHS_APART - 1 :: _EPOCHS_APART]
        rows += [row | {"epoch": before + row["epoch"]} for row in chosen]
        before += len(of_part)
    columns = ["epoch", *(str(row["epoch"]) for row in rows)]
    return markdown(
        columns,
        [
            [split, *(f"{row[f'{split}_bits_per_dim']:.3f}" for row in rows)]
            for split in ("validation", "test")
        ],
    )
