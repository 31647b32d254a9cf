"""Scores of out-of-distribution detection: higher means more in-distribution.

The unit is bits per dimension unless a score says otherwise. With D the dimensions of an image,

    bits/dim(x) = n_bits - log p(x) / (D log 2),

are the bits that the flow spends on the discrete image x: an upper bound in expectation over the
noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError
from glow_jax.ood.complexity import CODEC_CHANNELS, CODECS


@dataclass(frozen=True)
class Score:
    """A row of the table.

    Attributes:
        name: its name on the command line.
        title: its name in a report.
        paper: its source.
        needs: what it is computed from, in the order of the function's arguments: names of
            `measure`, and `training_bits_per_dim`, the mean over training images.
        function: takes arrays (N,) and numbers; returns the score, (N,).
        unit: its unit, for the axis of a picture.
    """

    name: str
    title: str
    paper: str
    needs: tuple[str, ...]
    function: Callable[..., np.ndarray]
    unit: str = "bits/dim"


def likelihood(bits_per_dim: np.ndarray) -> np.ndarray:
    """log2 P(x) / D, the negative bits/dim; Nalisnick et al. 2019 found that it fails."""
    return -bits_per_dim


def typicality(bits_per_dim: np.ndarray, training_bits_per_dim: float) -> np.ndarray:
    """-|bits/dim - mean bits/dim of training images|: the typicality test on one image."""
    return -np.abs(bits_per_dim - training_bits_per_dim)


def complexity(bits_per_dim: np.ndarray, code_length: np.ndarray) -> np.ndarray:
    """-S(x), with S = bits/dim of the flow minus bits/dim of a general compressor.

    (Serra et al. 2020.) S itself is high out of distribution.
    """
    return code_length - bits_per_dim


def likelihood_ratio(bits_per_dim: np.ndarray, background_bits_per_dim: np.ndarray) -> np.ndarray:
    """(log2 p(x) - log2 p_background(x)) / D, with a model of mutated images (Ren et al. 2019)."""
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


def compressibility(code_length: np.ndarray) -> np.ndarray:
    """The negative length of the compressed image: compression alone, no flow."""
    return -code_length


_NALISNICK = "Nalisnick et al. 2019, arXiv 1810.09136"
_TYPICALITY = "Nalisnick et al. 2019, arXiv 1906.02994"
_SERRA = "Serra et al. 2020, arXiv 1909.11480"
_REN = "Ren et al. 2019, arXiv 1906.02845"
_GRATHWOHL = "Grathwohl et al. 2020, arXiv 1912.03263"
_SCHIRRMEISTER = "Schirrmeister et al. 2020, arXiv 2006.10848"


def score_table(levels: int) -> dict[str, Score]:
    """All scores of a model with `levels` levels, by name; the likelihood comes first."""
    bits = "bits_per_dim"
    rows = [
        Score(
            "likelihood",
            "log-likelihood",
            _NALISNICK,
            (bits,),
            likelihood,
            unit="log2 p(x) / D: negative bits/dim",
        ),
        Score(
            "typicality",
            "typicality of one image",
            _TYPICALITY,
            (bits, "training_bits_per_dim"),
            typicality,
        ),
        *(
            Score(f"complexity_{name}", f"-S, {codec.title}", _SERRA, (bits, name), complexity)
            for name, codec in CODECS.items()
        ),
        Score(
            "likelihood_ratio",
            "likelihood ratio",
            _REN,
            (bits, "background_bits_per_dim"),
            likelihood_ratio,
        ),
        *(
            Score(
                f"level_{level}",
                f"likelihood of level {level}",
                _SCHIRRMEISTER,
                ("level_bits_per_dim",),
                partial(level_likelihood, level=level),
            )
            for level in range(1, levels + 1)
        ),
        Score(
            "gradient_norm",
            "-gradient norm",
            _GRATHWOHL,
            ("gradient_norm",),
            gradient_norm,
            unit="nats per unit of x",
        ),
        *(
            Score(name, f"{codec.title} alone, no flow", _SERRA, (name,), compressibility)
            for name, codec in CODECS.items()
        ),
    ]
    return {row.name: row for row in rows}


def choose_scores(
    names: Sequence[str], config: ModelConfig, *, has_background: bool
) -> list[Score]:
    """The requested scores, in the table's order; without names, all that can be computed.

    Args:
        names: names of scores.
        config: the configuration of the model.
        has_background: whether there is a second model to compare with.

    Raises:
        GlowError: a name is unknown, or its score cannot be computed; the message says why.
    """
    table = score_table(config.L)
    for name in names:
        if name not in table:
            raise GlowError(f"There is no score {name!r}; there are {', '.join(table)}.")
    missing = {
        name: _missing(row, config.image_shape[2], has_background) for name, row in table.items()
    }
    for name in names:
        if missing[name]:
            raise GlowError(f"Score {name} {missing[name]}, or leave it out of --scores.")
    return [row for name, row in table.items() if (name in names if names else not missing[name])]


def _missing(score: Score, channels: int, has_background: bool) -> str:
    if "background_bits_per_dim" in score.needs and not has_background:
        return "compares two models: give the other's run folder as --background"
    for codec in (CODECS[name] for name in score.needs if name in CODECS):
        if channels not in CODEC_CHANNELS:
            return f"takes grey or RGB images: give a run of those, not of {channels} channels"
        if codec.version() is None:
            return f"needs {codec.title}: {codec.remedy}"
    return ""
