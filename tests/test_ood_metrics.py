"""AUROC, AUPR, FPR and their intervals; the typicality test of batches."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sklearn_metrics

from glow_jax.ood import metrics
from glow_jax.ood.metrics import detection
from glow_jax.ood.typicality import BATCH_SIZES, batch_tests


def draw(seed: int, inside: int = 80, outside: int = 50) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(0.7, 1, inside), random.normal(0, 1, outside)


def by_sklearn(inside: np.ndarray, outside: np.ndarray, weights=None) -> list[float]:
    is_inside = np.repeat([1, 0], [len(inside), len(outside)])
    scores = np.concatenate([inside, outside])
    found = [sklearn_metrics.roc_auc_score(is_inside, scores, sample_weight=weights)]
    for labels, direction in ((is_inside, 1), (1 - is_inside, -1)):
        false, true, _ = sklearn_metrics.roc_curve(
            labels, direction * scores, sample_weight=weights, drop_intermediate=False
        )
        found.append(
            sklearn_metrics.average_precision_score(
                labels, direction * scores, sample_weight=weights
            )
        )
        found.append(false[np.searchsorted(true, 0.95 - 1e-12)])
    return [float(figure) for figure in found]


def values(found: metrics.Detection) -> list[float]:
    return [getattr(found, field.name).value for field in dataclasses.fields(found)]


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_figures_are_scikit_learns_with_ties_or_without(decimals: int | None) -> None:
    inside, outside = draw(0)
    if decimals is not None:
        inside, outside = inside.round(decimals), outside.round(decimals)
    np.testing.assert_allclose(
        values(detection(inside, outside, resamples=2)), by_sklearn(inside, outside), atol=1e-12
    )
    counted = metrics._figures(
        *(np.bincount(ranks, minlength=130) for ranks in metrics._ranks(inside, outside))
    )
    np.testing.assert_allclose(counted, by_sklearn(inside, outside), atol=1e-12)


@pytest.mark.parametrize("decimals", [None, 1])
def test_a_resample_s_figures_are_scikit_learns(decimals: int | None) -> None:
    inside, outside = draw(1)
    if decimals is not None:
        inside, outside = inside.round(decimals), outside.round(decimals)
    resampled = list(metrics._resampled(*metrics._ranks(inside, outside), resamples=20, seed=5))
    random = np.random.default_rng(5)
    for figures in resampled:
        weights = [
            np.bincount(random.integers(len(s), size=len(s)), minlength=len(s))
            for s in (inside, outside)
        ]
        expected = by_sklearn(inside, outside, np.concatenate(weights))
        np.testing.assert_allclose(figures, expected, atol=1e-12)


def test_known_cases() -> None:
    apart = detection(np.array([3.0, 4.0]), np.array([1.0, 2.0]), resamples=10)
    assert values(apart) == [1, 1, 0, 1, 0]
    swapped = detection(np.array([1.0, 2.0]), np.array([3.0, 4.0]), resamples=10)
    assert (swapped.auroc.value, swapped.fpr95.value, swapped.fpr95_out.value) == (0, 1, 1)
    same = detection(np.zeros(30), np.zeros(10), resamples=10)
    assert values(same) == [0.5, 0.75, 1, 0.25, 1]


def test_scores_that_are_no_number_count_as_the_lowest() -> None:
    finite = detection(np.array([1.0, 2.0, -60.0]), np.array([0.0, -60.0, -60.0]), resamples=50)
    nothing = np.array([0.0, -math.inf, math.nan])
    other = detection(np.array([1.0, 2.0, -math.inf]), nothing, resamples=50)
    assert finite == other
    highest = detection(np.array([math.inf, 1.0]), np.array([0.0, 0.0]), resamples=5)
    assert highest.auroc.value == 1


@pytest.mark.slow
def test_intervals_are_seeded_and_contain_the_truth_as_often_as_they_say() -> None:
    truth = scipy.stats.norm.cdf(0.7 / math.sqrt(2))
    repeats, resamples = 200, 200
    hits = 0
    for seed in range(repeats):
        found = detection(*draw(seed), resamples=resamples, seed=seed).auroc
        assert found.low <= found.value <= found.high
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / repeats <= 0.985
    once, again = (detection(*draw(0), resamples=50, seed=3) for _ in range(2))
    assert once == again
    assert once != detection(*draw(0), resamples=50, seed=4)


def test_resampling_is_within_each_set() -> None:
    # Were both drawn together, some resample would have another share of positives.
    inside, outside = np.zeros(9), np.zeros(3)
    found = detection(inside, outside, resamples=200).aupr
    assert (found.low, found.value, found.high) == (0.75, 0.75, 0.75)


# The typicality test


def test_batches_are_rejected_at_the_rate_that_is_meant() -> None:
    random = np.random.default_rng(0)
    known, inside = random.normal(3, 1, 20_000), random.normal(3, 1, 50_000)
    # Too likely is as untypical as too unlikely.
    likelier = random.normal(2, 1, 50_000)
    tests = batch_tests(3.0, known, inside, likelier)
    assert tuple(test.size for test in tests) == BATCH_SIZES == (1, 2, 10, 25)
    normal = scipy.stats.norm
    for test in tests:
        deviation = 1 / math.sqrt(test.size)
        epsilon = normal.isf(0.005) * deviation
        assert test.threshold == pytest.approx(epsilon, rel=0.05)
        assert test.rejected_in == pytest.approx(0.01, abs=0.006)
        power = normal.sf(epsilon, 1, deviation) + normal.cdf(-epsilon, 1, deviation)
        assert test.rejected_out == pytest.approx(power, abs=0.04)


def test_batches_by_hand() -> None:
    known = np.array([1.0, 1.0, 1.0])
    tests = batch_tests(1.5, known, np.array([1.0, 2.0, 1.9]), np.array([0.9, 2.1, 2.0, np.nan]))
    # Every known image is 0.5 away from the mean. Rejected is what is farther, or no number.
    assert [test.size for test in tests] == [1, 2]
    assert tests[0].threshold == 0.5
    assert tests[0].rejected_in == 0
    assert tests[0].rejected_out == 0.75
