"""Figures on record, to print beside one's own."""

from dataclasses import dataclass

from glow_jax.catalogue import ALIASES


@dataclass(frozen=True)
class Record:
    """A figure that somebody reported.

    Attributes:
        score: the score whose AUROC it is; empty for bits/dim of the in-distribution test images.
        value: the figure.
        source: whose it is, and what was done otherwise than here.
    """

    score: str
    value: float
    source: str


# Of the published Glow-PyTorch checkpoint. Serra et al. report 0.950 of S for a Glow of their own.
_NOTEBOOK = (
    "boschresearch/hierarchical_anomaly_detection, ReferenceGlowVsDirectPng.ipynb: OpenCV's PNG"
)
_RECORDS = {
    ("cifar10", "svhn_cropped"): (
        Record("", 3.39, "y0ast/Glow-PyTorch"),
        Record("complexity_png", 0.7837, _NOTEBOOK),
        Record("png", 0.0787, _NOTEBOOK),
    )
}


def records_of(inside: str, outside: str) -> tuple[Record, ...]:
    """What is on record for a model of one data set, tested on another; by their names."""
    return _RECORDS.get((ALIASES.get(inside, inside), ALIASES.get(outside, outside)), ())
