"""How well a conditional model tells the labels of images, and what it gains from them."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.data import Readable
from glow_jax.data.batch_order import Process
from glow_jax.data.batching import batches_in_order
from glow_jax.devices import Devices, sum_over_processes
from glow_jax.evaluation.likelihood import OnImages, dequantized, ignore, label_classes
from glow_jax.model import Glow
from glow_jax.typing import Array


@dataclass(frozen=True)
class Accuracy:
    """The share of images whose class is told right.

    Attributes:
        value: 0 to 1.
        standard_error: that of the share, over images.
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class LabelFigures:
    """What a split says of a conditional model's labels.

    Attributes:
        accuracy: where an image has one class, of each rule: `classifier` takes the largest logit,
            `likelihood` the class c with the largest p(x | c).
        class_bits_per_dim: where an image has one class, what knowing it saves, a mean over images:
            (log2 p(x | its class) - log2 of the mean of p(x | c) over all classes) / D. It is at
            most log2(classes) / D. Without it bits/dim compare with those of a model that is told
            no class. None for multi-hot labels.
        auroc: of multi-hot labels, how well the classifier's logit of each separates the images
            that have it from those that do not; None for a label that all of them have, or none.
    """

    accuracy: Mapping[str, Accuracy]
    class_bits_per_dim: float | None
    auroc: tuple[float | None, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values, for `results.json`."""
        values: dict[str, object] = {}
        for rule, found in self.accuracy.items():
            values[f"{rule}_accuracy"] = found.value
            values[f"{rule}_accuracy_standard_error"] = found.standard_error
        if self.class_bits_per_dim is not None:
            values["class_bits_per_dim"] = self.class_bits_per_dim
        if self.auroc:
            values["label_auroc"] = list(self.auroc)
        return values


def rules(model: Glow) -> tuple[str, ...]:
    """What tells labels, in the order of their scores; nothing in an unconditional model."""
    config = model.config
    classifier = ("classifier",) if model.classifier is not None else ()
    likelihood = ("likelihood",) if config.y_condition and not config.multi_class else ()
    return classifier + likelihood


def label_figures(
    model: Glow, split: Readable, devices: Devices, *, batch_size: int, progress: OnImages = ignore
) -> LabelFigures:
    """Tell the labels of every image of a split; arguments as for `likelihood`.

    The noise is that of the first draw of every evaluation.

    Args:
        model: a model that has one of the `rules`.
        split: images with labels.
        devices: the devices to compute on.
        batch_size: images at a time, over all devices; the result does not depend on it.
        progress: called after each batch with the number of its images.
    """
    config, replicated, names = model.config, devices.replicate(model), rules(model)
    classes = label_classes(config)
    labels = np.zeros((len(split), classes))
    scores = np.zeros((len(names), len(split), classes))
    for batch in batches_in_order(
        split,
        batch_size=batch_size,
        classes=classes,
        process=Process(devices.process, devices.processes),
    ):
        parts = (batch.images, batch.labels, batch.indices)
        pad_to = min(batch_size, len(split))
        found = devices.map_images(_scores, replicated, *parts, pad_to=pad_to)
        scores[:, batch.indices] = np.asarray(found, np.float64)
        labels[batch.indices] = batch.labels
        progress(len(batch.indices))
    # Every process has filled in its own images and left the others at zero.
    labels, scores = sum_over_processes(labels), sum_over_processes(scores)
    by_name = dict(zip(names, scores, strict=True))
    if config.multi_class:
        return LabelFigures({}, None, _auroc(by_name["classifier"], labels))
    numbers = labels.argmax(axis=1)
    accuracy = {name: _accuracy(found, numbers) for name, found in by_name.items()}
    saved = _nats_of_class(by_name["likelihood"], numbers) / np.log(2) / config.dimensions
    return LabelFigures(accuracy, float(saved.mean()), ())


def _scores(model: Glow, images: Array, labels: Array, indices: Array) -> tuple[jax.Array, ...]:
    """The scores of the `rules`, each (B, classes): logits, and log p(x | c) + const(x) in nats."""
    x, _ = model.redequantize(dequantized(model, images, indices))
    latents = model.encode(x, labels).latents
    found = [] if model.classifier is None else [model.classify(latents)]
    if not model.config.multi_class:
        top = latents[-1]  # the only latent whose prior sees the label

        def log_prob(one: jax.Array) -> jax.Array:
            y = jnp.broadcast_to(one, labels.shape)
            return model.top_prior(len(images), y, top.dtype).log_prob(top)

        found.append(jax.lax.map(log_prob, jnp.eye(labels.shape[1], dtype=labels.dtype)).T)
    return tuple(found)


def _accuracy(scores: np.ndarray, numbers: np.ndarray) -> Accuracy:
    right = scores.argmax(axis=1) == numbers
    error = right.std(ddof=1) / np.sqrt(len(right)) if len(right) > 1 else 0.0
    return Accuracy(float(right.mean()), float(error))


def _nats_of_class(log_prob: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The nats log p(x | its class) minus log of the mean of p(x | c) over classes, (N,)."""
    mean = np.logaddexp.reduce(log_prob, axis=1) - np.log(log_prob.shape[1])
    return log_prob[np.arange(len(numbers)), numbers] - mean


def _auroc(logits: np.ndarray, labels: np.ndarray) -> tuple[float | None, ...]:
    from sklearn.metrics import roc_auc_score  # takes half a second: not at `import glow_jax`

    return tuple(
        float(roc_auc_score(has_it, scores)) if 0 < has_it.sum() < len(has_it) else None
        for has_it, scores in zip(labels.T, logits.T, strict=True)
    )
