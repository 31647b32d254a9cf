"""What comes of a comparison, and how JSON has it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from glow_jax.ood.metrics import Detection
from glow_jax.ood.records import Record
from glow_jax.ood.typicality import BatchTest

CONVENTION = "a higher score is more in-distribution, and in-distribution is the positive class"


@dataclass(frozen=True)
class MeanBits:
    """The mean of measured bits/dim, and its standard error; None where one is not finite."""

    bits_per_dim: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Summary:
    """What a set of images is.

    Attributes:
        dataset: the data set's name.
        split: which part of it.
        images: how many.
        mean: their bits/dim; None where they were not measured.
    """

    dataset: str
    split: str
    images: int
    mean: MeanBits | None

    @property
    def bits_per_dim(self) -> float | None:
        """The mean bits/dim; None where it was not measured, or is not finite."""
        return None if self.mean is None else self.mean.bits_per_dim

    def to_json(self) -> dict[str, object]:
        """Plain values; those of bits/dim only where they were measured."""
        about: dict[str, object] = {
            "dataset": self.dataset,
            "split": self.split,
            "images": self.images,
        }
        return about if self.mean is None else about | dataclasses.asdict(self.mean)


@dataclass(frozen=True)
class Threshold:
    """What a threshold does that was chosen by training images alone.

    Attributes:
        value: 5 % of training images have a lower score.
        rejected_in: share of in-distribution test images below it; 0.05 if they score alike.
        rejected_out: share of out-of-distribution images below it.
    """

    value: float
    rejected_in: float
    rejected_out: float


@dataclass(frozen=True)
class Figures:
    """How well one score tells the two sets apart.

    Attributes:
        title: the score's, in a report.
        paper: where it comes from.
        images_in: in-distribution images that were scored.
        images_out: the same out of distribution.
        detection: AUROC, AUPR and FPR.
        mean_in: mean of the finite scores in distribution; None where there are none.
        mean_out: the same out of distribution.
        not_finite: scores of both sets that are no finite number.
        threshold: None where the score of training images is not known.
    """

    title: str
    paper: str
    images_in: int
    images_out: int
    detection: Detection
    mean_in: float | None
    mean_out: float | None
    not_finite: int
    threshold: Threshold | None

    def to_json(self) -> dict[str, object]:
        """Plain values, those of the detection among the others."""
        values = dataclasses.asdict(self)
        detection = values.pop("detection")
        return {"title": values.pop("title"), "paper": values.pop("paper"), **detection, **values}


@dataclass(frozen=True)
class TypicalityTest:
    """The typicality test on batches.

    Attributes:
        training: the images whose mean is typical.
        thresholds_from: the images that the thresholds were taken from.
        batches: a test for each size of batch.
    """

    training: Summary
    thresholds_from: Summary
    batches: tuple[BatchTest, ...]


@dataclass(frozen=True)
class OnRecord:
    """A figure on record, and one's own beside it; None where that was not computed."""

    record: Record
    here: float | None


@dataclass(frozen=True)
class Comparison:
    """All figures for two sets of images.

    Attributes:
        inside: in-distribution images.
        outside: out-of-distribution images.
        seed: of all resamples.
        scores: by name, in the table's order.
        typicality_test: None where no score needs training images.
        on_record: what is known of this pair of data sets.
    """

    inside: Summary
    outside: Summary
    seed: int
    scores: Mapping[str, Figures]
    typicality_test: TypicalityTest | None
    on_record: tuple[OnRecord, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values, for a file."""
        results: dict[str, object] = {
            "in_distribution": self.inside.to_json(),
            "out_of_distribution": self.outside.to_json(),
            "convention": CONVENTION,
            "bootstrap_seed": self.seed,
            "scores": {name: figures.to_json() for name, figures in self.scores.items()},
        }
        test = self.typicality_test
        if test is not None:
            results["training"] = test.training.to_json()
            results["typicality_test"] = {
                "thresholds_from": test.thresholds_from.to_json(),
                "batches": [dataclasses.asdict(batch) for batch in test.batches],
            }
        if self.on_record:
            results["on_record"] = [
                {**dataclasses.asdict(known.record), "here": known.here} for known in self.on_record
            ]
        return results
