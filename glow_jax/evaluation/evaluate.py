"""The evaluation of a run on the test split of a data set."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from glow_jax.config import Dequantization
from glow_jax.data import Dataset, load_dataset
from glow_jax.data.fit import check_fits
from glow_jax.data.notes import note
from glow_jax.devices import Devices
from glow_jax.errors import GlowError, shown
from glow_jax.evaluation.importance import ImportanceBounds
from glow_jax.evaluation.labels import LabelFigures, label_figures, rules
from glow_jax.evaluation.likelihood import (
    BitsPerDim,
    Likelihood,
    OnImages,
    Reconstruction,
    likelihood,
    reconstruction,
)
from glow_jax.evaluation.same_data import data_of, difference
from glow_jax.hub import load_run
from glow_jax.kernels.products import PRECISION, Precision
from glow_jax.model import Glow, computing, weights_digest, with_uniform_dequantization
from glow_jax.runs import LoadedRun, RunData

_Bar = Callable[[int], AbstractContextManager[OnImages]]


@dataclass(frozen=True)
class Evaluation:
    """The results of a run on a test split.

    Attributes:
        run: the run.
        dataset: the name of the data set.
        dtype: the dtype of the coupling networks.
        precision: the precision of their convolutions.
        dequantization: the kind of the noise, and so of the bound.
        dequantizations: the number of noise draws in the average.
        likelihood: bits/dim of each image.
        importance: importance-weighted bounds, by the number of draws in each; none if not asked.
        reconstruction: how well encode -> decode gives the images back.
        labels: how well it tells labels; None of a model that cannot.
    """

    run: LoadedRun
    dataset: str
    dtype: str
    precision: str
    dequantization: Dequantization
    dequantizations: int
    likelihood: Likelihood
    importance: Mapping[int, BitsPerDim]
    reconstruction: Reconstruction
    labels: LabelFigures | None

    @property
    def level_bits_per_dim(self) -> np.ndarray:
        """Each level's mean share of bits/dim, (L,)."""
        return self.likelihood.level_bits_per_dim.mean(axis=0)

    def to_json(self) -> dict[str, object]:
        """Plain values, for `results.json`."""
        importance = {
            str(draws): {"bits_per_dim": bound.mean, "standard_error": bound.standard_error}
            for draws, bound in self.importance.items()
        }
        return {
            "dataset": self.dataset,
            "split": "test",
            "images": len(self.likelihood.bits_per_dim),
            "step": self.run.step,
            "weights_sha256": weights_digest(self.run.average_or_model),
            "dtype": self.dtype,
            "precision": self.precision,
            "averaged_parameters": self.run.average is not None,
            "dequantization": self.dequantization,
            "dequantizations": self.dequantizations,
            "bits_per_dim": self.likelihood.mean,
            "standard_error": self.likelihood.standard_error,
            "level_bits_per_dim": self.level_bits_per_dim.tolist(),
            **({"importance": importance} if importance else {}),
            "reconstruction_max_abs_error": {
                "from_latents": self.reconstruction.from_latents,
                "from_noise": self.reconstruction.from_noise,
            },
            "reconstruction_images_off": self.reconstruction.images_off,
            **({} if self.labels is None else self.labels.to_json()),
        }


def evaluate(
    run: str | Path | LoadedRun,
    dataset: Dataset | None = None,
    *,
    dequantization: Dequantization | None = None,
    dequantizations: int = 1,
    importance: int = 0,
    batch_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    precision: Precision = PRECISION,
    devices: Devices | None = None,
    bar: _Bar = lambda _: nullcontext(lambda _: None),
) -> Evaluation:
    """Evaluate a run on a test split: bits/dim, reconstruction, and labels if it tells them.

    Args:
        run: a loaded run, or what `glow_jax.load` takes, whose newest checkpoint is loaded.
        dataset: the data set; by default the run's own.
        dequantization: uniform noise, or variational noise where the model was trained with it;
            by default as in training.
        dequantizations: draws of the noise to average over.
        importance: draws for importance-weighted bounds of 1, 10, 100, ... and so many draws; the
            average is then over these draws. 0 for no such bounds.
        batch_size: images at a time; by default as in training. The result does not depend on it.
        dtype: dtype of the coupling networks; by default as in training.
        precision: precision of their convolutions on a GPU or TPU; see `computing`.
        devices: the devices to compute on; by default all.
        bar: opens a progress bar for a number of images.

    Raises:
        GlowError: the run cannot be loaded, the data set does not fit it, or it was not trained
            with that dequantisation.
    """
    run = run if isinstance(run, LoadedRun) else load_run(run)
    if dataset is None:
        dataset = dataset_of(run)
    else:
        _check_fits(run, dataset)
    if dequantizations < 1:
        raise GlowError(f"dequantizations is {dequantizations}; it must be at least 1.")
    if importance and dequantizations > 1:
        raise GlowError(
            f"dequantizations is {dequantizations}; importance averages over its own {importance} "
            "draws: leave one of them out."
        )
    draws = importance or dequantizations
    batch_size = run.config.training.eval_batch_size if batch_size is None else batch_size
    if batch_size < 1:
        raise GlowError(f"eval_batch_size is {batch_size}; it must be at least 1.")
    dtype = dtype or run.config.training.dtype
    devices = devices or Devices()
    model = dequantizing(run, dequantization)
    model = computing(model, dtype=dtype, precision=precision)
    test = dataset.test
    bounds = ImportanceBounds(draws, model.config.dimensions)
    tells_labels = bool(rules(model))
    with bar(len(test) * (draws + 1 + tells_labels)) as progress:
        found = likelihood(
            model,
            test,
            devices,
            batch_size=batch_size,
            draws=draws,
            progress=progress,
            on_draw=bounds.add,
        )
        errors = reconstruction(model, test, devices, batch_size=batch_size, progress=progress)
        labels = None
        if tells_labels:
            labels = label_figures(model, test, devices, batch_size=batch_size, progress=progress)
    return Evaluation(
        run,
        dataset.name,
        dtype,
        precision,
        model.config.dequantization,
        draws,
        found,
        bounds.found() if importance else {},
        errors,
        labels,
    )


def dequantizing(run: LoadedRun, dequantization: Dequantization | None) -> Glow:
    """The model of a run to evaluate, with this dequantisation; None for that of its training.

    Raises:
        GlowError: the run was not trained with it.
    """
    model = run.average_or_model
    if dequantization == "uniform" and model.config.dequantization != "uniform":
        return with_uniform_dequantization(model)
    if dequantization not in (None, model.config.dequantization):
        raise GlowError(
            f"{run.name} was trained with {model.config.dequantization} dequantisation, so it "
            f"cannot be evaluated with {dequantization}: leave --dequantization out."
        )
    return model


def dataset_of(
    run: LoadedRun, name: str | None = None, *, dataroot: str | None = None, download: bool = True
) -> Dataset:
    """Load the data set that a run was trained on, or another one with images of the same size.

    Args:
        run: the run.
        name: the data set that the user asks for; a note says if its images are not the run's own.
            By default it is the run's own, and must still hold the images that the run was started
            with.
        dataroot: folder of the data sets. By default it is the run's own, where nothing is written:
            a stranger may have made the run.
        download: whether to download and prepare the data set if it is missing.

    Raises:
        GlowError: as for `load_dataset`, or the images or labels do not fit the run, or those of
            its own data set have changed.
    """
    before = run.data
    data = replace(
        run.config.data,
        dataset=run.config.data.dataset if name is None else name,
        dataroot=run.config.data.dataroot if dataroot is None else dataroot,
        download=download,
    )
    height, width, channels = run.config.model.image_shape
    if channels in (1, 3):
        data = replace(data, channels=str(channels))
    if name and height == width:
        data = replace(data, image_size=height)
    dataset = load_dataset(data, named_by_run=dataroot is None)
    if before is not None:
        _compare(run, before, dataset, data.dataset, is_own=name is None)
    _check_fits(run, dataset)
    return dataset


def _compare(run: LoadedRun, before: RunData, dataset: Dataset, name: str, *, is_own: bool) -> None:
    """Refuse a run's own data set that has changed; note one that holds other images."""
    was = run.config.data.dataset
    differs = difference(run.name, before, was, data_of(dataset), name)
    if differs is None:
        return
    if is_own:
        raise GlowError(
            f"{differs}: bring the same images back, or, without --ood, give --dataset "
            f"{shown(name)} to evaluate the run on these."
        )
    note(f"{differs}; if they share images, the run may have been trained on these test images.")


def _check_fits(run: LoadedRun, dataset: Dataset) -> None:
    check_fits(run.config.model, dataset, source=run.name, advice="give another --dataset")
