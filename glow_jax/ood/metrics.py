"""How well a score separates two sets of images, with bootstrap intervals.

The positive class is in-distribution, and its scores should be higher, as in Hendrycks & Gimpel
2017 (arXiv 1610.02136: their "AUPR In") and Liang et al. 2018 (arXiv 1706.02690). The AUROC is the
same if out-of-distribution is the positive class and the score is negated.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_TRUE_POSITIVES = 0.95
_COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Detection:
    """How well a score separates in-distribution (positive) from out-of-distribution images.

    Attributes:
        auroc: P(in > out) + P(in = out) / 2; guessing gives 0.5.
        aupr: average precision; guessing gives the share of in-distribution images.
        fpr95: share of out-of-distribution images accepted when 95 % of in-distribution ones are.
    """

    auroc: Interval
    aupr: Interval
    fpr95: Interval


def detection(
    inside: np.ndarray, outside: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> Detection:
    """Compare the scores of two sets of images.

    The figures are scikit-learn's. The intervals are percentiles of the same figures over resamples
    of both sets, each of its own size (stratified). NaN counts as the lowest score.

    Args:
        inside: scores of in-distribution images, (N,).
        outside: scores of out-of-distribution images, (M,).
        resamples: the number of resamples.
        seed: seed of the resamples.
    """
    from sklearn import metrics  # takes half a second: not at `import glow_jax`

    ranks_in, ranks_out = _ranks(inside, outside)
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    ranks = np.concatenate([ranks_in, ranks_out])
    false, true, _ = metrics.roc_curve(labels, -ranks, drop_intermediate=False)
    values = (
        metrics.roc_auc_score(labels, -ranks),
        metrics.average_precision_score(labels, -ranks),
        false[np.searchsorted(true, _TRUE_POSITIVES)],
    )
    drawn = np.array([*_resampled(ranks_in, ranks_out, resamples, seed)])
    tail = (1 - _COVERAGE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    intervals = (Interval(*map(float, column)) for column in zip(values, low, high, strict=True))
    return Detection(*intervals)


def _ranks(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each score among all distinct ones, 0 for the highest; only ranks matter."""
    scores = np.concatenate([inside, outside]).astype(np.float64)
    scores[np.isnan(scores)] = -np.inf
    _, ranks = np.unique(-scores, return_inverse=True)
    return ranks[: len(inside)], ranks[len(inside) :]


def _resampled(
    ranks_in: np.ndarray, ranks_out: np.ndarray, resamples: int, seed: int
) -> Iterator[tuple[float, float, float]]:
    random = np.random.default_rng(seed)
    places = max(ranks_in.max(), ranks_out.max()) + 1
    for _ in range(resamples):
        counts = (
            np.bincount(ranks[random.integers(len(ranks), size=len(ranks))], minlength=places)
            for ranks in (ranks_in, ranks_out)
        )
        yield _figures(*counts)


def _figures(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float, float]:
    """AUROC, average precision and FPR at 95 % TPR, from the counts of scores at each rank.

    With one sort and then counting, a thousand resamples take a second.
    """
    true, false = np.cumsum(inside), np.cumsum(outside)
    positives, negatives = true[-1], false[-1]
    auroc = np.sum(inside * (negatives - false + outside / 2)) / (positives * negatives)
    precision = true / np.maximum(true + false, 1)
    threshold = np.searchsorted(true / positives, _TRUE_POSITIVES)
    return auroc, np.sum(inside * precision) / positives, false[threshold] / negatives
