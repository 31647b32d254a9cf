"""The model card: what a model folder's `README.md` says of the run."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from glow_jax.config import Config, ModelConfig
from glow_jax.config.command_line import training_flags
from glow_jax.config.wording import architecture, image_format
from glow_jax.errors import shown
from glow_jax.hub import Weights
from glow_jax.hub.paths import kind_and_path
from glow_jax.publishing.results import Measured
from glow_jax.runs import RunData

UNKNOWN_LICENSE = "unknown"
"""What the hub calls a licence that nobody has stated."""

_PAPER = "[Kingma & Dhariwal 2018](https://arxiv.org/abs/1807.03039)"
# What the hub takes for the identifier of a data set; no path, and no file of pictures.
_DATASET = re.compile("([A-Za-z0-9_-]+/)?[A-Za-z0-9_-]+")
_MOST_CLASSES = 100
_WEIGHTS: dict[Weights, str] = {
    "averaged": "an exponential moving average of the parameters",
    "trained": "the parameters in training, not an average of them",
    "unsaid": "nobody has said whether they are averaged",
}


@dataclass(frozen=True)
class Training:
    """How a model was trained, where the run is known.

    Attributes:
        config: the run's configuration.
        step: the number of updates.
        data: what the run remembers of its images, or None.
        hours: how long training took, or None.
    """

    config: Config
    step: int
    data: RunData | None
    hours: float | None


@dataclass(frozen=True)
class Card:
    """What a card is written from.

    Attributes:
        name: the model's name on the hub, or its folder.
        license: an identifier of the hub's, such as mit, or `UNKNOWN_LICENSE`.
        model: the architecture.
        parameters: the number of trained values.
        weights: which parameters the folder holds.
        picture: the file of samples beside the card.
        temperature: that of the samples.
        labels: of a conditional model, those that rows of samples have; empty of another model.
        rows: how many rows there are at most.
        training: how it was trained; None if that is not known.
        measured: its bits/dim; None if not measured.
    """

    name: str
    license: str
    model: ModelConfig
    parameters: int
    weights: Weights
    picture: str
    temperature: float
    labels: Sequence[str]
    rows: int
    training: Training | None
    measured: Measured | None

    def text(self) -> str:
        """The card, as Markdown with the hub's metadata in front."""
        title = self.name.rpartition("/")[2]
        parts = [
            f"---\n{self._metadata(title)}\n---\n\n# {shown(title)}",
            self._introduction(),
            f"![Samples at temperature {self.temperature:g}]({self.picture})",
            f"Samples at temperature {self.temperature:g}{self._rows()}.",
            self._table(),
            "## Use",
            "This takes the program glow-jax, installed:",
            "```python\nimport glow_jax\n\n"
            f"model = glow_jax.Glow.from_pretrained({json.dumps(self.name)})\n```",
            "```bash\n"
            f"glow-jax sample {shlex.quote(self.name)}\n"
            f"glow-jax eval {shlex.quote(self.name)}{self._dataset_flag()} --dataroot data\n```",
            "## Training",
            self._training(),
            "## Limits",
            "A likelihood is no measure of how usual an image is: a Glow may find images of other "
            "kinds likelier than its own ([Nalisnick et al. 2019]"
            f"(https://arxiv.org/abs/1810.09136)).{self._measure()}",
            "## Licence",
            f"`{self.license}`" + self._advice(),
        ]
        return "\n\n".join(parts) + "\n"

    def _measure(self) -> str:
        """What measures it; other images share no labels with those of a conditional model."""
        return "" if self.model.y_condition else " `glow-jax eval` with `--ood` measures it."

    def _rows(self) -> str:
        """What the rows of the picture are."""
        if not self.labels:
            return ""
        known, rows = len(self.labels), self.labels[: self.rows]
        one, many = ("set of labels", "sets of labels")
        if not self.model.multi_class:
            one, many = ("class", "classes")
        of = one if known == len(rows) else f"of the first {len(rows)} of {known} {many}"
        return f"; a row for each {of}, from the top{self._by_number(', ')}: {', '.join(rows)}"

    def _by_number(self, before: str) -> str:
        """What says that labels are numbers, where their names are not known."""
        return "" if self._class_names() else f"{before}by number"

    def _advice(self) -> str:
        """What stands behind the licence."""
        if self.license != UNKNOWN_LICENSE:
            return ""
        return ": nobody has stated one. Ask who trained the model before you use it."

    def _dataset_flag(self) -> str:
        """What names the images for an evaluation; a model without a run knows none."""
        return " --dataset DATA" if self.training is None else ""

    def _metadata(self, title: str) -> str:
        """The front matter: each value as JSON, which YAML reads too.

        But YAML knows no surrogate pairs, as JSON escapes letters above U+FFFF.
        """
        values: dict[str, object] = {
            "license": self.license,
            "library_name": "glow-jax",
            "pipeline_tag": "unconditional-image-generation",
            "tags": ["glow", "normalizing-flow", "density-estimation", "jax", "flax"],
        }
        if self.training is not None and _DATASET.fullmatch(self.training.config.data.dataset):
            values["datasets"] = [self.training.config.data.dataset]
        if (found := self.measured) is not None:
            bits = [_metric("bits_per_dim", "bits/dim", found.bits_computed, found.bits_per_dim)]
            accuracies = [
                _metric("accuracy", f"accuracy by the {rule}", found.computed, value)
                for rule, value, _ in found.accuracies
            ]
            tasks = {"unconditional-image-generation": bits, "image-classification": accuracies}
            dataset = {
                "name": shown(self._measured_on(found)),
                "type": _identifier(self._measured_on(found)),
                "split": shown(found.split),
            }
            results = [
                {"task": {"type": task}, "dataset": dataset, "metrics": metrics}
                for task, metrics in tasks.items()
                if metrics
            ]
            values["metrics"] = [result["metrics"][0]["type"] for result in results]
            values["model-index"] = [{"name": shown(title), "results": results}]
        lines = (
            f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()
        )
        return "\n".join(lines)

    def _introduction(self) -> str:
        of = "" if self.training is None else f" of {shown(self._trained_on(self.training))}"
        return (
            f"A Glow{of}: a normalizing flow ({_PAPER}), which draws images and gives each image a "
            "likelihood. The program is glow-jax, in JAX and Flax."
        )

    def _table(self) -> str:
        rows = {
            "images": image_format(self.model),
            "architecture": architecture(self.model),
            "parameters": f"{self.parameters:,}, float32",
            "weights": _WEIGHTS[self.weights],
        }
        if self.training is not None:
            rows["updates"] = f"{self.training.step:,}"
            rows["data"] = shown(self._trained_on(self.training))
        if self.training is not None and (data := self.training.data) is not None:
            rows["data"] += (
                f", {data.training_images:,} training and {data.test_images:,} test images"
            )
            if names := self._class_names():
                rows["labels" if self.model.multi_class else "classes"] = ", ".join(
                    shown(name, 40) for name in names
                )
        rows["bits/dim"] = "not measured"
        if (found := self.measured) is not None:
            rows["bits/dim"] = (
                f"{found.bits_per_dim:.4f} +- {found.standard_error:.4f} (standard error), on "
                f"{found.images:,} {shown(found.split)} images of "
                f"{shown(self._measured_on(found))}, with {shown(found.dequantization, 40)} "
                f"dequantisation{''.join(f', {part}' for part in found.bits_computed)}"
            )
            rows |= self._labels(found)
            if found.reconstruction_images_off:
                rows["encode -> decode"] = (
                    f"{found.reconstruction_images_off:,} of {found.images:,} images not given "
                    "back: a value is off by more than half a grey level"
                )
        lines = [f"| {name} | {_in_a_cell(text)} |" for name, text in rows.items()]
        return "\n".join(["| | |", "|---|---|", *lines])

    def _trained_on(self, training: Training) -> str:
        return _without_folders(training.config.data.dataset)

    def _measured_on(self, found: Measured) -> str:
        """The name of the images that results are of.

        Those of a file have its name without an ending, which may be that of another data set.
        """
        training = self.training
        if training is not None and training.data is not None:
            file = PurePath(training.config.data.dataset)
            is_own = (file.stem, training.data.test_images) == (found.dataset, found.images)
            if is_own:
                return file.name
        return _without_folders(found.dataset)

    def _labels(self, found: Measured) -> dict[str, str]:
        rows, names = {}, self._class_names()
        if found.accuracies:
            rows["accuracy"] = ", ".join(
                f"{value:.4f} +- {error:.4f} by the {rule}"
                for rule, value, error in found.accuracies
            )
            rows["accuracy"] += "".join(f", {part}" for part in found.computed)
        if found.class_bits_per_dim is not None:
            rows["without the class"] = (
                f"bits/dim are {found.class_bits_per_dim:.4f} higher: those above are of images "
                "whose class is told"
            )
        if found.label_auroc:
            title = f"AUROC of labels{self._by_number(' ')}"
            rows[title] = ", ".join(
                f"{class_name(number, names)}: {'-' if value is None else format(value, '.3f')}"
                for number, value in enumerate(found.label_auroc[:_MOST_CLASSES])
            )
            if (known := len(found.label_auroc)) > _MOST_CLASSES:
                rows[title] += f", ... ({known} labels)"
        return rows

    def _class_names(self) -> tuple[str, ...]:
        data = None if self.training is None else self.training.data
        return () if data is None else data.class_names[:_MOST_CLASSES]

    def _training(self) -> str:
        if self.training is None:
            return "Not known here: the model was not saved from a run of glow-jax."
        config = self.training.config
        line = shlex.join(["glow-jax", "train", *training_flags(config), "--output_dir", "RUN"])
        text = f"```bash\n{shown(line, 2000)}\n```"
        if self.training.hours is not None:
            text += f"\n\nIt took {_duration(self.training.hours)}, with all evaluations."
        if config.training.saved_model:
            text += (
                "\n\nThe run started from the weights of another model, "
                f"{shown(config.training.saved_model)} (`--saved_model`). Its updates and its time "
                "are not counted here."
            )
        return text


def class_name(number: int, names: Sequence[str]) -> str:
    """The name of a class as a card shows it, or its number where the run knows no name."""
    return shown(names[number], 40) if number < len(names) else str(number)


def _metric(kind: str, name: str, computed: Sequence[str], value: float) -> dict[str, object]:
    """A figure of the metadata; its name says how it was computed where that is not usual."""
    how = f" ({', '.join(computed)})" if computed else ""
    return {"type": kind, "name": f"{name}{how}", "value": value}


def _without_folders(dataset: str) -> str:
    """A data set's name; of files and folders, without the folders above them."""
    if _DATASET.fullmatch(dataset):
        return dataset
    kind, path = kind_and_path(dataset)
    return f"{kind}{PurePath(path).name}"


def _identifier(dataset: str) -> str:
    """The name of a data set in characters that the hub takes."""
    if _DATASET.fullmatch(dataset):
        return dataset
    return re.sub("[^A-Za-z0-9_-]+", "-", dataset).strip("-") or "images"


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|")
