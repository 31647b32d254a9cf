"""Scores of out-of-distribution detection: higher means more in-distribution.

The unit is bits per dimension unless a score says otherwise. With D the dimensions of an image,

    bits/dim(x) = n_bits - log p(x) / (D log 2),

are the bits that the flow spends on the discrete image x: an upper bound in expectation over the
noise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError
from glow_jax.ood import fitted
from glow_jax.ood.complexity import CODEC_CHANNELS, CODECS

TYPICALITY = "typicality"
# Names of what only some scores need.
BACKGROUND = "background_bits_per_dim"
ENSEMBLE = "ensemble_bits_per_dim"
LAYER_NORMS = "layer_gradient_norms"
LID = ("lid_bits_per_dim", "singular_values", "neighbourhood_dimension")
# Of more values, a Jacobian has more entries than a likelihood is worth.
_MOST_DIMENSIONS = 4096


@dataclass(frozen=True)
class Score:
    """A row of the table.

    Attributes:
        name: its name on the command line.
        title: its name in a report.
        paper: its source.
        needs: what it is computed from, in the order of the function's arguments: names of
            `measure`.
        function: takes arrays of N images, and what was fitted, if anything is; returns the score,
            (N,).
        fit: takes the same arrays of training images, and returns what the function takes last;
            None if nothing is fitted.
        unit: its unit, for the axis of a picture.
        is_slow: whether it is only computed where it is asked for.
    """

    name: str
    title: str
    paper: str
    needs: tuple[str, ...]
    function: Callable[..., np.ndarray]
    fit: Callable[..., object] | None = None
    unit: str = "bits/dim"
    is_slow: bool = False


def likelihood(bits_per_dim: np.ndarray) -> np.ndarray:
    """log2 P(x) / D, the negative bits/dim; Nalisnick et al. 2019 found that it fails."""
    return -bits_per_dim


def complexity(bits_per_dim: np.ndarray, code_length: np.ndarray) -> np.ndarray:
    """-S(x), with S = bits/dim of the flow minus bits/dim of a general compressor.

    (Serra et al. 2020.) S itself is high out of distribution.
    """
    return code_length - bits_per_dim


def likelihood_ratio(bits_per_dim: np.ndarray, background_bits_per_dim: np.ndarray) -> np.ndarray:
    """(log2 p(x) - log2 p_background(x)) / D, with a second model.

    It was trained on mutated images (Ren et al. 2019), or on images of all kinds (Schirrmeister et
    al. 2020).
    """
    with np.errstate(invalid="ignore"):  # NaN if both are infinite
        return background_bits_per_dim - bits_per_dim


def level_likelihood(level_bits_per_dim: np.ndarray, *, level: int) -> np.ndarray:
    """The negative share of bits/dim of one level, counted from 1: (N, L) -> (N,).

    Schirrmeister et al. 2020 use the last level, which sees the coarsest features.
    """
    return -level_bits_per_dim[:, level - 1]


def gradient_norm(gradient_norm: np.ndarray) -> np.ndarray:
    """-||d log p / dx||, in nats per unit of x: the approximate mass (Grathwohl et al. 2020)."""
    return -gradient_norm


def waic(
    bits_per_dim: np.ndarray, ensemble_bits_per_dim: np.ndarray, *, dimensions: int
) -> np.ndarray:
    """Mean minus variance of log p(x), in nats, over the run and an ensemble (Choi et al. 2018).

    Args:
        bits_per_dim: of the run, (N,).
        ensemble_bits_per_dim: of the other runs, (N, M).
        dimensions: D.
    """
    bits = np.column_stack([bits_per_dim, ensemble_bits_per_dim])
    log_prob = -bits * dimensions * np.log(2)
    with np.errstate(invalid="ignore"):  # NaN if one is infinite
        return log_prob.mean(axis=1) - log_prob.var(axis=1)


def compressibility(code_length: np.ndarray) -> np.ndarray:
    """The negative length of the compressed image: compression alone, no flow."""
    return -code_length


_NALISNICK = "Nalisnick et al. 2019, arXiv 1810.09136"
_TYPICALITY = "Nalisnick et al. 2019, arXiv 1906.02994"
_SERRA = "Serra et al. 2020, arXiv 1909.11480"
_REN = "Ren et al. 2019, arXiv 1906.02845"
_GRATHWOHL = "Grathwohl et al. 2020, arXiv 1912.03263"
_SCHIRRMEISTER = "Schirrmeister et al. 2020, arXiv 2006.10848"
_MORNINGSTAR = "Morningstar et al. 2021, arXiv 2006.09273"
_DAUNCEY = "Dauncey et al. 2024, arXiv 2403.01485"
_KAMKARI = "Kamkari et al. 2024, arXiv 2403.18910"
_CHOI = "Choi et al. 2018, arXiv 1810.01392"
_BITS = "bits_per_dim"
_STATISTICS = (_BITS, "level_bits_per_dim", "png", "gradient_norm")


def score_table(config: ModelConfig) -> dict[str, Score]:
    """All scores of a model, by name; the likelihood comes first."""
    rows = [*_of_the_likelihood(config), *_of_gradients(), *_of_formats()]
    return {row.name: row for row in rows}


def _of_the_likelihood(config: ModelConfig) -> list[Score]:
    levels = [
        Score(
            f"level_{level}",
            f"likelihood of level {level}",
            _SCHIRRMEISTER,
            ("level_bits_per_dim",),
            partial(level_likelihood, level=level),
        )
        for level in range(1, config.L + 1)
    ]
    codecs = [
        Score(f"complexity_{name}", f"-S, {codec.title}", _SERRA, (_BITS, name), complexity)
        for name, codec in CODECS.items()
    ]
    return [
        Score(
            "likelihood",
            "log-likelihood",
            _NALISNICK,
            (_BITS,),
            likelihood,
            unit="log2 p(x) / D: negative bits/dim",
        ),
        Score(
            TYPICALITY,
            "typicality of one image",
            _TYPICALITY,
            (_BITS,),
            fitted.typicality,
            fitted.mean_bits,
        ),
        *codecs,
        Score(
            "likelihood_ratio",
            "likelihood ratio",
            f"{_REN}; {_SCHIRRMEISTER}",
            (_BITS, BACKGROUND),
            likelihood_ratio,
        ),
        Score(
            "waic",
            "WAIC",
            _CHOI,
            (_BITS, ENSEMBLE),
            partial(waic, dimensions=config.dimensions),
            unit="nats",
        ),
        *levels,
    ]


def _of_gradients() -> list[Score]:
    return [
        Score(
            "gradient_norm",
            "-gradient norm",
            _GRATHWOHL,
            ("gradient_norm",),
            gradient_norm,
            unit="nats per unit of x",
        ),
        Score(
            "layer_norms",
            "norms of the layers' gradients",
            _DAUNCEY,
            (LAYER_NORMS,),
            fitted.layer_norms,
            fitted.fit_layer_norms,
            unit="log-density",
            is_slow=True,
        ),
        Score(
            "lid",
            "likelihood and dimension",
            _KAMKARI,
            LID,
            fitted.lid_score,
            fitted.fit_lid,
            unit="share of training images",
            is_slow=True,
        ),
        Score(
            "dose_kde",
            "DoSE, kernel densities",
            _MORNINGSTAR,
            _STATISTICS,
            fitted.dose,
            fitted.fit_dose_kde,
            unit="log-density",
        ),
        Score(
            "dose_svm",
            "DoSE, one-class SVM",
            _MORNINGSTAR,
            _STATISTICS,
            fitted.dose,
            fitted.fit_dose_svm,
            unit="distance from the border",
        ),
    ]


def _of_formats() -> list[Score]:
    return [
        Score(name, f"{codec.title} alone, no flow", _SERRA, (name,), compressibility)
        for name, codec in CODECS.items()
    ]


def choose_scores(
    names: Sequence[str],
    config: ModelConfig,
    *,
    has_background: bool = False,
    has_ensemble: bool = False,
) -> list[Score]:
    """The requested scores, in the table's order.

    Args:
        names: names of scores; without any, all that can be computed and are not slow.
        config: the configuration of the model.
        has_background: whether there is a second model to compare with.
        has_ensemble: whether there are further models of the same images.

    Raises:
        GlowError: a name is unknown, or its score cannot be computed; the message says why.
    """
    table = score_table(config)
    for name in names:
        if name not in table:
            raise GlowError(f"There is no score {name!r}; there are {', '.join(table)}.")
    given = {BACKGROUND: has_background, ENSEMBLE: has_ensemble}
    missing = {name: _missing(row, config, given) for name, row in table.items()}
    for name in names:
        if missing[name]:
            raise GlowError(f"Score {name} {missing[name]}, or leave it out of --scores.")
    if names:
        return [row for name, row in table.items() if name in names]
    return [row for name, row in table.items() if not (missing[name] or row.is_slow)]


def _missing(score: Score, config: ModelConfig, given: Mapping[str, bool]) -> str:
    channels = config.image_shape[2]
    if BACKGROUND in score.needs and not given[BACKGROUND]:
        return "compares two models: give the other's run folder as --background"
    if ENSEMBLE in score.needs and not given[ENSEMBLE]:
        return "compares several models: give the other runs' folders as --ensemble"
    if score.needs == LID and config.dimensions > _MOST_DIMENSIONS:
        return f"takes images of at most {_MOST_DIMENSIONS} values, not {config.dimensions}"
    for codec in (CODECS[name] for name in score.needs if name in CODECS):
        if channels not in CODEC_CHANNELS:
            return f"takes grey or RGB images: give a run of those, not of {channels} channels"
        if codec.version() is None:
            return f"needs {codec.title}: {codec.remedy}"
    return ""
