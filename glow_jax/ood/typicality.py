"""The typicality test on batches of images: Nalisnick et al. 2019, arXiv 1906.02994."""

from dataclasses import dataclass

import numpy as np

BATCH_SIZES = (1, 2, 10, 25)
# The paper uses this quantile, but too few resamples for a stable value.
_QUANTILE = 0.99
_RESAMPLES = 10_000


@dataclass(frozen=True)
class BatchTest:
    """The test of batches of one size.

    Attributes:
        size: M, images in a batch.
        threshold: epsilon, in bits/dim; a batch farther from the training mean is rejected.
        rejected_in: share of in-distribution batches that are rejected; should be about 0.01.
        rejected_out: share of out-of-distribution batches that are rejected.
    """

    size: int
    threshold: float
    rejected_in: float
    rejected_out: float


def batch_tests(
    training_mean: float,
    known: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
    *,
    seed: int = 0,
) -> list[BatchTest]:
    """Test whether batches of M images are typical of the training distribution.

    A batch is rejected if |mean bits/dim - training mean| > epsilon, where epsilon is the 99 %
    quantile of that distance over batches drawn with replacement from known images.

    Args:
        training_mean: mean bits/dim of training images.
        known: bits/dim of validation images, (K,), or of training images if there are none.
        inside: bits/dim of in-distribution images, (N,).
        outside: bits/dim of out-of-distribution images, (O,).
        seed: seed of the resamples, and of the order of images in batches.

    Returns:
        One test per batch size for which both sets have enough images.
    """
    random = np.random.default_rng(seed)
    inside, outside = random.permutation(inside), random.permutation(outside)
    tests = []
    for size in BATCH_SIZES:
        if size > min(len(inside), len(outside)):
            break
        draws = known[random.integers(len(known), size=(_RESAMPLES, size))]
        distances = np.abs(draws.mean(axis=1) - training_mean)
        threshold = float(np.quantile(distances, _QUANTILE))
        rejected = (_rejected(bits, size, training_mean, threshold) for bits in (inside, outside))
        tests.append(BatchTest(size, threshold, *rejected))
    return tests


def _rejected(bits: np.ndarray, size: int, training_mean: float, threshold: float) -> float:
    """The share of rejected batches; NaN is rejected, and an incomplete last batch left out."""
    batches = bits[: len(bits) // size * size].reshape(-1, size)
    accepted = np.abs(batches.mean(axis=1) - training_mean) <= threshold
    return float(1 - accepted.mean())
