"""How well a score separates two sets of images, with bootstrap intervals.

The positive class is in-distribution, and its scores should be higher, as in Hendrycks & Gimpel
2017 (arXiv 1610.02136: their "AUPR In") and Liang et al. 2018 (arXiv 1706.02690). OpenOOD (Zhang et
al. 2023, arXiv 2306.09301) has out-of-distribution as positive, with the score negated. The AUROC
is then the same; the others are not, and are computed both ways.
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
        aupr_out: average precision with out-of-distribution as positive.
        fpr95_out: share of in-distribution images rejected when 95 % of the others are.
    """

    auroc: Interval
    aupr: Interval
    fpr95: Interval
    aupr_out: Interval
    fpr95_out: Interval


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
    is_inside = np.repeat([1, 0], [len(inside), len(outside)])
    ranks = np.concatenate([ranks_in, ranks_out])
    values = [metrics.roc_auc_score(is_inside, -ranks)]
    for labels, scores in ((is_inside, -ranks), (1 - is_inside, ranks)):
        false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
        values.append(metrics.average_precision_score(labels, scores))
        values.append(false[np.searchsorted(true, _TRUE_POSITIVES)])
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
) -> Iterator[tuple[float, ...]]:
    random = np.random.default_rng(seed)
    places = max(ranks_in.max(), ranks_out.max()) + 1
    for _ in range(resamples):
        counts = (
            np.bincount(ranks[random.integers(len(ranks), size=len(ranks))], minlength=places)
            for ranks in (ranks_in, ranks_out)
        )
        yield _figures(*counts)


def _figures(inside: np.ndarray, outside: np.ndarray) -> tuple[float, ...]:
    """The figures of `Detection` in its order, from the counts of scores at each rank.

    With one sort and then counting, a thousand resamples take a second.
    """
    negatives = np.cumsum(outside)
    below = negatives[-1] - negatives + outside / 2
    auroc = np.sum(inside * below) / (np.sum(inside) * negatives[-1])
    return (auroc, *_of_positive(inside, outside), *_of_positive(outside[::-1], inside[::-1]))


def _of_positive(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """Average precision and FPR at 95 % TPR, from counts at each rank, the likeliest first."""
    true, false = np.cumsum(positive), np.cumsum(negative)
    precision = true / np.maximum(true + false, 1)
    threshold = np.searchsorted(true / true[-1], _TRUE_POSITIVES)
    return np.sum(positive * precision) / true[-1], false[threshold] / false[-1]
