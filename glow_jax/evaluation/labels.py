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
        value: 0 to 1; an image whose scores are not finite is told wrong.
        standard_error: that of the share, over images.
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class LabelFigures:
    """What a split says of a conditional model's labels.

    Attributes:
        accuracy: where an image has one class, of each of the `rules`: `classifier` takes the
            largest logit, `likelihood` the class c with the largest p(x | c).
        class_bits_per_dim: where an image has one class, what knowing it saves, a mean over images:
            (log2 p(x | its class) - log2 of the mean of p(x | c) over all classes) / D. It is at
            most log2(classes) / D. None for multi-hot labels, or if it is not finite.
        auroc: of multi-hot labels, how well the classifier's logit of each separates the images
            that have it from those that do not, NaN counting as the lowest; None for a label that
            all of them have, or none.
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
    """What tells labels, in the order of their figures; nothing in an unconditional model."""
    config = model.config
    classifier = ("classifier",) if model.classifier is not None else ()
    likelihood = ("likelihood",) if config.y_condition and not config.multi_class else ()
    return classifier + likelihood


def label_figures(
    model: Glow, split: Readable, devices: Devices, *, batch_size: int, progress: OnImages = ignore
) -> LabelFigures:
    """Tell the labels of every image of a split.

    The noise is that of the first draw of every evaluation.

    Args:
        model: a model that has one of the `rules`.
        split: images with labels.
        devices: the devices to compute on.
        batch_size: images at a time, over all devices; the result does not depend on it.
        progress: called after each batch with the number of its images.
    """
    config, replicated = model.config, devices.replicate(model)
    classes, has_several = label_classes(config), config.multi_class
    labels, logits = np.zeros((2, len(split), classes if has_several else 0))
    right, saved = np.zeros((len(rules(model)), len(split))), np.zeros(len(split))
    for batch in batches_in_order(
        split,
        batch_size=batch_size,
        classes=classes,
        process=Process(devices.process, devices.processes),
    ):
        parts = (batch.images, batch.labels, batch.indices)
        pad_to = min(batch_size, len(split))
        if has_several:
            found = devices.map_images(_logits, replicated, *parts, pad_to=pad_to)
            (logits[batch.indices],) = found
            labels[batch.indices] = batch.labels
        else:
            *told, nats = devices.map_images(_told, replicated, *parts, pad_to=pad_to)
            right[:, batch.indices] = told
            saved[batch.indices] = nats
        progress(len(batch.indices))
    # Every process has filled in its own images and left the others at zero.
    if has_several:
        return LabelFigures({}, None, _auroc(*map(sum_over_processes, (logits, labels))))
    right, saved = sum_over_processes(right), sum_over_processes(saved)
    accuracy = {rule: _accuracy(one) for rule, one in zip(rules(model), right, strict=True)}
    bits = float(saved.mean() / np.log(2) / config.dimensions)
    return LabelFigures(accuracy, bits if np.isfinite(bits) else None, ())


def _latents(
    model: Glow, images: Array, labels: Array, indices: Array
) -> tuple[jax.Array | None, ...]:
    """Latents of images as an evaluation sees them; only the prior of the last sees the labels."""
    x, _ = model.redequantize(dequantized(model, images, indices))
    return model.encode(x, labels).latents


def _logits(model: Glow, images: Array, labels: Array, indices: Array) -> tuple[jax.Array]:
    return (model.classify(_latents(model, images, labels, indices)),)


def _told(model: Glow, images: Array, labels: Array, indices: Array) -> tuple[jax.Array, ...]:
    """Whether each of the `rules` tells the class, and what it saves in nats, each (B,)."""
    latents = _latents(model, images, labels, indices)
    top, classes = latents[-1], labels.shape[1]
    assert top is not None, "encode gives every latent"

    def log_prob(number: jax.Array) -> jax.Array:
        one = jax.nn.one_hot(jnp.full(len(images), number), classes)
        return model.top_prior(len(images), one, top.dtype).log_prob(top)

    each = jax.lax.map(log_prob, jnp.arange(classes)).T  # log p(x | c) + const(x), (B, classes)
    own = jnp.sum(jnp.where(jnp.asarray(labels) > 0, each, 0), axis=1)
    saved = jnp.log(classes) - jax.nn.logsumexp(each - own[:, None], axis=1)
    scores = [each] if model.classifier is None else [model.classify(latents), each]
    return (*(_is_told(one, labels) for one in scores), saved)


def _is_told(scores: jax.Array, labels: Array) -> jax.Array:
    is_finite = jnp.all(jnp.isfinite(scores), axis=1)
    return is_finite & (jnp.argmax(scores, axis=1) == jnp.argmax(jnp.asarray(labels), axis=1))


def _accuracy(right: np.ndarray) -> Accuracy:
    error = right.std(ddof=1) / np.sqrt(len(right)) if len(right) > 1 else 0.0
    return Accuracy(float(right.mean()), float(error))


def _auroc(logits: np.ndarray, labels: np.ndarray) -> tuple[float | None, ...]:
    from sklearn.metrics import roc_auc_score  # takes half a second: not at `import glow_jax`

    areas = []
    for has_it, scores in zip(labels.T, logits.T, strict=True):
        ranks = np.unique(np.where(np.isnan(scores), -np.inf, scores), return_inverse=True)[1]
        is_defined = 0 < has_it.sum() < len(has_it)
        areas.append(float(roc_auc_score(has_it, ranks)) if is_defined else None)
    return tuple(areas)
