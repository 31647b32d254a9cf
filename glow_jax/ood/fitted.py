"""Scores that are first fitted to what was measured on training images.

Each has a `fit_...`, which takes arrays of training images, and a function of the same arrays of
the images to judge and of what was fitted.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Density = Callable[[np.ndarray], np.ndarray]
"""Takes statistics of images, (N, S), all finite; returns how typical each image is, (N,)."""

# Of a density, at which the tree of points stops: too small for any figure.
_RELATIVE_ERROR = 1e-4


def mean_bits(bits_per_dim: np.ndarray) -> float:
    """Mean of the finite bits/dim."""
    return float(bits_per_dim[np.isfinite(bits_per_dim)].mean())


def typicality(bits_per_dim: np.ndarray, training_bits_per_dim: float) -> np.ndarray:
    """-|bits/dim - mean bits/dim of training images|: the typicality test on one image."""
    return -np.abs(bits_per_dim - training_bits_per_dim)


def _statistics(
    bits_per_dim: np.ndarray,
    level_bits_per_dim: np.ndarray,
    png: np.ndarray,
    gradient_norm: np.ndarray,
) -> np.ndarray:
    """The statistics of DoSE, (N, L + 3): bits/dim, each level's share, -S, and the log norm."""
    with np.errstate(divide="ignore"):  # a norm of 0 is infinitely untypical
        log_norm = np.log(gradient_norm)
    return np.column_stack([bits_per_dim, level_bits_per_dim, png - bits_per_dim, log_norm])


def fit_dose_kde(*training: np.ndarray) -> Density:
    """A kernel density for each statistic of training images, which counts as independent.

    (Morningstar et al. 2021.) The kernel is Gaussian, and Scott's rule gives its width.
    """
    from sklearn.neighbors import KernelDensity

    scale, statistics = _standardised(_statistics(*training))
    estimators = [
        KernelDensity(
            bandwidth=len(column) ** (-1 / 5),
            rtol=_RELATIVE_ERROR,  # pyright: ignore[reportArgumentType]
        ).fit(column[:, None])
        for column in statistics.T
    ]

    def density(statistics: np.ndarray) -> np.ndarray:
        columns = zip(estimators, scale(statistics).T, strict=True)
        return np.sum([one.score_samples(column[:, None]) for one, column in columns], axis=0)

    return density


def fit_dose_svm(*training: np.ndarray) -> Density:
    """A one-class SVM of the statistics of training images, with scikit-learn's defaults.

    (Morningstar et al. 2021.)
    """
    from sklearn.svm import OneClassSVM

    scale, statistics = _standardised(_statistics(*training))
    machine = OneClassSVM().fit(statistics)
    return lambda statistics: machine.decision_function(scale(statistics))


def _standardised(statistics: np.ndarray) -> tuple[Density, np.ndarray]:
    """The scaling to mean 0 and variance 1, and the scaled rows; rows with infinities are out."""
    finite = statistics[np.isfinite(statistics).all(axis=1)]
    mean, deviation = finite.mean(axis=0), finite.std(axis=0)
    deviation[deviation == 0] = 1

    def scale(statistics: np.ndarray) -> np.ndarray:
        return (statistics - mean) / deviation

    return scale, scale(finite)


def dose(
    bits_per_dim: np.ndarray,
    level_bits_per_dim: np.ndarray,
    png: np.ndarray,
    gradient_norm: np.ndarray,
    density: Density,
) -> np.ndarray:
    """How typical the statistics of each image are; -infinity where one is not finite."""
    statistics = _statistics(bits_per_dim, level_bits_per_dim, png, gradient_norm)
    finite = np.isfinite(statistics).all(axis=1)
    found = np.full(len(statistics), -np.inf)
    if finite.any():
        found[finite] = density(statistics[finite])
    return found


class LayerNorms(NamedTuple):
    """The log squared gradient norms of training images.

    Attributes:
        mean: of each layer, (F,).
        deviation: of each layer, (F,); NaN where no norm varies, or one is 0.
    """

    mean: np.ndarray
    deviation: np.ndarray


def fit_layer_norms(layer_gradient_norms: np.ndarray) -> LayerNorms:
    """Fit a normal distribution to each layer's log squared norm."""
    logs = _log_squares(layer_gradient_norms)
    logs = np.where(np.isfinite(logs).all(axis=0), logs, np.nan)
    deviation = logs.std(axis=0, ddof=1)
    return LayerNorms(logs.mean(axis=0), np.where(deviation > 0, deviation, np.nan))


def layer_norms(layer_gradient_norms: np.ndarray, fitted: LayerNorms) -> np.ndarray:
    """The log-density of the layers' log squared norms, counted as independent.

    (Dauncey et al. 2024.) A layer whose norms did not vary over training images is left out.
    """
    logs = _log_squares(layer_gradient_norms)
    distance = (logs - fitted.mean) / fitted.deviation
    each = -0.5 * (distance**2 + np.log(2 * np.pi)) - np.log(fitted.deviation)
    return np.sum(each[:, ~np.isnan(fitted.deviation)], axis=1)


def _log_squares(norms: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 2 * np.log(norms.astype(np.float64))


class TwoThresholds(NamedTuple):
    """What ranks images by likelihood and by dimension.

    Attributes:
        scale: a singular value above it counts as a dimension.
        bits_per_dim: of training images, ascending.
        dimensions: of training images, ascending.
    """

    scale: float
    bits_per_dim: np.ndarray
    dimensions: np.ndarray


def fit_lid(
    bits_per_dim: np.ndarray, singular_values: np.ndarray, neighbourhood_dimension: np.ndarray
) -> TwoThresholds:
    """Choose the scale at which the dimension of training images is that of their neighbourhoods.

    As many singular values of all training images lie above it as their dimensions sum to.
    """
    values = np.sort(singular_values, axis=None)[::-1]
    count = min(round(neighbourhood_dimension.sum()), len(values) - 1)
    scale = float(values[count])
    dimensions = np.sum(singular_values > scale, axis=1)
    return TwoThresholds(scale, np.sort(bits_per_dim), np.sort(dimensions))


def lid_score(
    bits_per_dim: np.ndarray,
    singular_values: np.ndarray,
    _: np.ndarray,
    fitted: TwoThresholds,
) -> np.ndarray:
    """The lower of two ranks among training images: of the likelihood, and of the dimension.

    Where a flow squeezes volume into few directions, densities are high and yet nothing is drawn
    there; so neither may be too low (Kamkari et al. 2024). The paper moves two thresholds; here
    both move together, so that they reject equal shares of training images.
    """
    dimensions = np.sum(singular_values > fitted.scale, axis=1)
    count = len(fitted.dimensions)
    likelier = count - np.searchsorted(fitted.bits_per_dim, bits_per_dim, side="left")
    wider = np.searchsorted(fitted.dimensions, dimensions, side="right")
    return np.minimum(likelier, wider) / count
