"""A run that is ready to draw, to look and to edit, with its images and its directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from glow_jax.data import Dataset
from glow_jax.data.dataset import has_labels
from glow_jax.devices import Devices
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dequantizing
from glow_jax.evaluation.likelihood import label_classes
from glow_jax.evaluation.samples import one_label, visible_pixels
from glow_jax.kernels.products import PRECISION
from glow_jax.latents import Noise
from glow_jax.model import Glow, computing
from glow_jax.ood.measure import ReplicatedModel, replicated_model
from glow_jax.runs import Direction, LoadedRun, read_directions

BATCH = 8
"""Images that are decoded at once: one compiled program serves any number."""


@dataclass(frozen=True)
class Studio:
    """A run, ready to compute as `eval.py` computes by default.

    Attributes:
        run: the run.
        model: its model.
        flow: the same model, ready to measure.
        dataset: the images that it was trained on, or others of their size; None if not at hand.
        own_dataset: whether they are those that it was trained on.
        class_names: of a model with labels, or of its data set; none where there are no classes.
        directions: the directions that the run keeps, by name.
    """

    run: LoadedRun
    model: Glow
    flow: ReplicatedModel
    dataset: Dataset | None
    own_dataset: bool
    class_names: tuple[str, ...]
    directions: Mapping[str, Direction]

    @property
    def training_name(self) -> str:
        """The name of the data set that the run was trained on."""
        if self.dataset is not None and self.own_dataset:
            return self.dataset.name
        return self.run.config.data.dataset

    @property
    def weights(self) -> str:
        """The digest of the model's weights."""
        return str(self.flow.origin["weights_sha256"])


def open_studio(run: LoadedRun, dataset: Dataset | None, *, own_dataset: bool = True) -> Studio:
    """Make a run ready, as `eval.py` would evaluate it.

    Args:
        run: the run.
        dataset: its images, or others of their size; None to go without.
        own_dataset: whether they are its own.

    Raises:
        GlowError: a file of the run is damaged.
    """
    dtype = run.config.training.dtype
    model = computing(dequantizing(run, None), dtype=dtype, precision=PRECISION)
    flow = replicated_model(Devices(1), model, step=run.step, dtype=dtype, precision=PRECISION)
    weights = str(flow.origin["weights_sha256"])
    directions = read_directions(run.folder, model.config, weights=weights)
    names = _class_names(run, dataset)
    return Studio(run, model, flow, dataset, own_dataset, names, directions)


def _class_names(run: LoadedRun, dataset: Dataset | None) -> tuple[str, ...]:
    config, data = run.config.model, run.data
    known = dataset.class_names if dataset is not None else ()
    known = known or (data.class_names if data is not None else ())
    count = config.y_classes if config.y_condition else dataset.classes if dataset else 0
    return known if len(known) == count else tuple(map(str, range(count)))


def label_in_words(studio: Studio, y: np.ndarray) -> str:
    """The names of the classes of one image, (1, classes)."""
    return ", ".join(studio.class_names[number] for number in np.flatnonzero(y[0])) or "no class"


def from_test_split(studio: Studio, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A test image, uint8 (H, W, C), and its label, (1, classes), where the model takes one.

    Raises:
        GlowError: there is no data set, or no such image in it.
    """
    if studio.dataset is None:
        raise GlowError("There are no test images: the data set of this run is not here.")
    split = studio.dataset.test
    if not 0 <= number < len(split):
        raise GlowError(
            f"There is no test image {number}: they are numbered 0 to {len(split) - 1}."
        )
    part = split[np.array([number])]
    if not label_classes(studio.model.config):
        return part.images[0], None
    if not has_labels(split):
        raise GlowError("The test images have no labels, and this model takes one.")
    classes = np.flatnonzero(part.labels[0]) if part.labels.ndim == 2 else part.labels
    return part.images[0], one_label(studio.model, [int(number) for number in classes])


def decoded_pixels(
    studio: Studio,
    noise: Noise,
    y: np.ndarray | None,
    progress: Callable[[int], object] = lambda _: None,
) -> np.ndarray:
    """Decode any number of images, a batch of `BATCH` at a time.

    Args:
        studio: the run.
        noise: noise of N images.
        y: their labels, (N, classes), or one for all, (1, classes); None without labels.
        progress: called after each batch with the number of its images.

    Returns:
        uint8, (N, H, W, C).
    """
    count = len(noise[0])
    labels = None if y is None else np.broadcast_to(y, (count, y.shape[1]))
    parts = []
    for first in range(0, count, BATCH):
        here = slice(first, first + BATCH)
        part = tuple(_padded(np.asarray(entry[here])) for entry in noise)
        x = studio.model.decode_noise(part, None if labels is None else _padded(labels[here]))
        length = min(BATCH, count - first)
        parts.append(visible_pixels(studio.model, x)[:length])
        progress(length)
    return np.concatenate(parts)


def _padded(part: np.ndarray) -> np.ndarray:
    return np.concatenate([part, np.repeat(part[-1:], BATCH - len(part), axis=0)])


def key_of(seed: int) -> jax.Array:
    """The random key of a seed.

    Raises:
        GlowError: the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise GlowError(f"The seed is {seed}; it must be from 0 to 4294967295.")
    return jax.random.key(seed)
