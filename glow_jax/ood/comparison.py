"""The comparison of two sets of images: what to measure, and the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glow_jax.data.batching import Batch
from glow_jax.evaluation.likelihood import OnImages, ignore
from glow_jax.ood.images import Images
from glow_jax.ood.measure import LIKELIHOOD, Meter
from glow_jax.ood.metrics import detection
from glow_jax.ood.records import records_of
from glow_jax.ood.results import (
    Comparison,
    Figures,
    MeanBits,
    OnRecord,
    Summary,
    TypicalityTest,
)
from glow_jax.ood.scores import Score
from glow_jax.ood.store import measure_all
from glow_jax.ood.typicality import batch_tests
from glow_jax.runs.measured import Columns, measured_file

_TRAINING = "training_bits_per_dim"


@dataclass(frozen=True)
class Job:
    """Images, and one meter to measure them with."""

    images: Images
    meter: Meter

    def carry_out(self, folder: Path, *, batch_size: int, progress: OnImages = ignore) -> Columns:
        """Measure the images that are not measured yet; keep the numbers under `folder`.

        Args:
            folder: the run folder.
            batch_size: images at a time.
            progress: called after each batch with the number of its images.
        """
        split, pad_to = self.images.split, min(batch_size, len(self.images.split))

        def measure(batch: Batch) -> Mapping[str, np.ndarray]:
            return self.meter.measure(batch, pad_to)

        place = f"{file_name(self.images.name)}-{self.images.part}"
        origin = {**self.meter.origin, "images_sha256": self.images.fingerprint}
        return measure_all(
            split,
            measure,
            path=measured_file(folder, place, self.meter.name),
            origin=origin,
            batch_size=batch_size,
            classes=self.meter.classes,
            progress=progress,
        )


def file_name(name: str) -> str:
    """A data set's name as part of a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


def plan_jobs(
    scores: Sequence[Score],
    meters: Sequence[Meter],
    tested: Sequence[Images],
    reference: tuple[Images, Images],
) -> list[Job]:
    """Plan what to measure: everything of the tested images, only bits/dim of reference images.

    Args:
        scores: the scores to compute.
        meters: the meters that they need.
        tested: in- and out-of-distribution images.
        reference: training images, and the images for the typicality test's thresholds.
    """
    jobs = [Job(images, meter) for images in tested for meter in meters]
    if any(_TRAINING in score.needs for score in scores):
        of_training = [meter for meter in meters if meter.name == LIKELIHOOD]
        jobs += [Job(images, meter) for images in dict.fromkeys(reference) for meter in of_training]
    return jobs


@dataclass(frozen=True)
class Measured:
    """Images and the numbers measured on them."""

    images: Images
    columns: Columns

    @property
    def mean_bits_per_dim(self) -> float:
        """Mean over the images with finite bits/dim; bits/dim must have been measured."""
        return float(_finite(self.columns["bits_per_dim"]).mean())

    def score(self, score: Score, training_mean: float | None) -> np.ndarray:
        """The images' scores, (N,)."""
        known = {**self.columns, _TRAINING: training_mean}
        return score.function(*(known[name] for name in score.needs))

    def summary(self) -> Summary:
        """Describe the images, with their mean bits/dim if it was measured."""
        images, bits = self.images, self.columns.get("bits_per_dim")
        mean = None
        if bits is not None:
            error = bits.std(ddof=1) / np.sqrt(len(bits)) if len(bits) > 1 else 0.0
            mean = MeanBits(_plain(bits.mean()), _plain(error))
        return Summary(images.name, images.part, len(images.split), mean)


def compare(
    scores: Sequence[Score],
    inside: Measured,
    outside: Measured,
    reference: tuple[Measured, Measured] | None,
    *,
    seed: int = 0,
) -> Comparison:
    """Compute all figures for two sets of images.

    Args:
        scores: the scores to compute.
        inside: in-distribution images.
        outside: out-of-distribution images.
        reference: training images, and the images for the typicality test's thresholds; None if no
            score needs them.
        seed: seed of all resamples.
    """
    mean = None if reference is None else reference[0].mean_bits_per_dim
    figures = {
        score.name: _figures(score, inside.score(score, mean), outside.score(score, mean), seed)
        for score in scores
    }
    summary = inside.summary()
    return Comparison(
        inside=summary,
        outside=outside.summary(),
        seed=seed,
        scores=figures,
        typicality_test=None if reference is None else _test(reference, inside, outside, seed),
        on_record=tuple(
            OnRecord(record, _here(record.score, summary, figures))
            for record in records_of(inside.images.name, outside.images.name)
        ),
    )


def _figures(score: Score, inside: np.ndarray, outside: np.ndarray, seed: int) -> Figures:
    return Figures(
        title=score.title,
        paper=score.paper,
        detection=detection(inside, outside, seed=seed),
        mean_in=_finite_mean(inside),
        mean_out=_finite_mean(outside),
        not_finite=int(sum(np.sum(~np.isfinite(values)) for values in (inside, outside))),
    )


def _test(
    reference: tuple[Measured, Measured], inside: Measured, outside: Measured, seed: int
) -> TypicalityTest:
    training, known = reference
    bits = (images.columns["bits_per_dim"] for images in (inside, outside))
    finite = _finite(known.columns["bits_per_dim"])
    tests = batch_tests(training.mean_bits_per_dim, finite, *bits, seed=seed)
    return TypicalityTest(training.summary(), known.summary(), tuple(tests))


def _here(score: str, inside: Summary, figures: Mapping[str, Figures]) -> float | None:
    """The figure computed here for one on record; None if it was not computed."""
    if not score:
        return inside.bits_per_dim
    return figures[score].detection.auroc.value if score in figures else None


def _finite_mean(values: np.ndarray) -> float | None:
    finite = _finite(values)
    return float(finite.mean()) if len(finite) else None


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
