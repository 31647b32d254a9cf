"""The comparison of two sets of images: what to measure, and the results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glow_jax.data.batching import Batch
from glow_jax.evaluation.likelihood import OnImages, ignore
from glow_jax.ood.fitted import mean_bits
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
    Threshold,
    TypicalityTest,
)
from glow_jax.ood.scores import TYPICALITY, Score
from glow_jax.ood.store import measure_all
from glow_jax.ood.typicality import batch_tests
from glow_jax.runs.measured import Columns, measured_file

# Of training images, for the thresholds that they alone choose.
_REJECTED = 0.05


@dataclass(frozen=True)
class Job:
    """Images, and one meter to measure them with."""

    images: Images
    meter: Meter

    @property
    def measured(self) -> Images:
        """The images that are measured: as many as the meter takes."""
        return self.images if self.meter.most is None else self.images.sample(self.meter.most)

    def carry_out(self, folder: Path, *, batch_size: int, progress: OnImages = ignore) -> Columns:
        """Measure the images that are not measured yet; keep the numbers under `folder`.

        Args:
            folder: the run folder.
            batch_size: images at a time.
            progress: called after each batch with the number of its images.
        """
        images = self.measured
        pad_to = min(batch_size, len(images.split))

        def measure(batch: Batch) -> Mapping[str, np.ndarray]:
            return self.meter.measure(batch, pad_to)

        origin = {**self.meter.origin, "images_sha256": images.fingerprint}
        return measure_all(
            images.split,
            measure,
            path=measured_file(folder, file_name(images.title), self.meter.name),
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
    """Plan what to measure: everything of the tested images, of reference images what is fitted.

    Args:
        scores: the scores to compute.
        meters: the meters that they need.
        tested: in- and out-of-distribution images.
        reference: training images, and the images for the typicality test's thresholds.
    """
    training, known = reference
    jobs = [Job(images, meter) for images in tested for meter in meters]
    needed = {name for score in scores if score.fit for name in score.needs}
    jobs += [Job(training, meter) for meter in meters if needed & set(meter.gives)]
    if known is not training and _tests_batches(scores):
        jobs += [Job(known, meter) for meter in meters if meter.name == LIKELIHOOD]
    return jobs


def _tests_batches(scores: Sequence[Score]) -> bool:
    return any(score.name == TYPICALITY for score in scores)


@dataclass(frozen=True)
class Measured:
    """Images and the numbers measured on them."""

    images: Images
    columns: Columns

    def of(self, score: Score) -> list[np.ndarray]:
        """What the score is computed from."""
        return [self.columns[name] for name in score.needs]

    def summary(self) -> Summary:
        """Describe the images, with their mean bits/dim if it was measured."""
        images, bits = self.images, self.columns.get("bits_per_dim")
        mean = None
        if bits is not None:
            error = bits.std(ddof=1) / np.sqrt(len(bits)) if len(bits) > 1 else 0.0
            mean = MeanBits(_plain(bits.mean()), _plain(error))
        return Summary(images.name, images.part, len(images.split), mean)


class Judge:
    """The scores of a run, fitted to its training images where they have to be."""

    def __init__(self, scores: Sequence[Score], reference: tuple[Measured, Measured] | None):
        """Fit what has to be fitted.

        Args:
            scores: the scores to compute.
            reference: training images, and the images for the typicality test's thresholds; None
                if no score needs them.
        """
        self.scores = scores
        self.reference = reference
        self._fitted = {
            score.name: (score.fit(*reference[0].of(score)),)
            for score in scores
            if score.fit is not None and reference is not None
        }
        self._thresholds = {} if reference is None else self._of_training(reference[0])

    def _of_training(self, training: Measured) -> dict[str, float]:
        """The thresholds of those scores that can be computed of training images."""
        known = [score for score in self.scores if set(score.needs) <= set(training.columns)]
        values = {score.name: _finite(self._values(score, training)) for score in known}
        return {
            name: float(np.quantile(found, _REJECTED))
            for name, found in values.items()
            if len(found)
        }

    def _values(self, score: Score, measured: Measured) -> np.ndarray:
        return score.function(*measured.of(score), *self._fitted.get(score.name, ()))

    def judge(self, measured: Measured) -> "Judged":
        """Compute all scores of images."""
        return Judged(
            measured, {score.name: self._values(score, measured) for score in self.scores}
        )

    def compare(self, inside: "Judged", outside: "Judged", *, seed: int = 0) -> Comparison:
        """Compute all figures for in- and out-of-distribution images; `seed` of all resamples."""
        figures = {
            score.name: _figures(score, inside, outside, self._thresholds.get(score.name), seed)
            for score in self.scores
        }
        sets = inside.measured, outside.measured
        summary = sets[0].summary()
        test = None
        if self.reference is not None and _tests_batches(self.scores):
            test = _test(self.reference, *sets, seed)
        return Comparison(
            inside=summary,
            outside=sets[1].summary(),
            seed=seed,
            scores=figures,
            typicality_test=test,
            on_record=tuple(
                OnRecord(record, _here(record.score, summary, figures))
                for record in records_of(*(images.images.name for images in sets))
            ),
        )


@dataclass(frozen=True)
class Judged:
    """Images, and their scores by name, each (N,)."""

    measured: Measured
    values: Mapping[str, np.ndarray]


def _figures(
    score: Score, inside: Judged, outside: Judged, threshold: float | None, seed: int
) -> Figures:
    values = inside.values[score.name], outside.values[score.name]
    return Figures(
        title=score.title,
        paper=score.paper,
        images_in=len(values[0]),
        images_out=len(values[1]),
        detection=detection(*values, seed=seed),
        mean_in=_finite_mean(values[0]),
        mean_out=_finite_mean(values[1]),
        not_finite=int(sum(np.sum(~np.isfinite(part)) for part in values)),
        threshold=None if threshold is None else _at(threshold, *values),
    )


def _at(threshold: float, inside: np.ndarray, outside: np.ndarray) -> Threshold:
    """How many are rejected; NaN is."""
    return Threshold(
        threshold, *(float(np.mean(~(part >= threshold))) for part in (inside, outside))
    )


def _test(
    reference: tuple[Measured, Measured], inside: Measured, outside: Measured, seed: int
) -> TypicalityTest:
    training, known = reference
    bits = (images.columns["bits_per_dim"] for images in (inside, outside))
    mean = mean_bits(training.columns["bits_per_dim"])
    finite = _finite(known.columns["bits_per_dim"])
    tests = batch_tests(mean, finite, *bits, seed=seed)
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
