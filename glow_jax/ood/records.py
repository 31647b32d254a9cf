"""Figures on record, to print beside the ones computed here."""

from dataclasses import dataclass

from glow_jax.catalogue import ALIASES


@dataclass(frozen=True)
class Record:
    """A reported figure.

    Attributes:
        score: the score whose AUROC it is; empty for bits/dim of the in-distribution test images.
        value: the figure.
        source: who reported it, and what they did differently.
    """

    score: str
    value: float
    source: str


# For the published Glow-PyTorch checkpoint. Serra et al. report 0.950 of S for their own Glow.
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
    """The figures on record for a model of one data set, tested on another; both by name."""
    return _RECORDS.get((ALIASES.get(inside, inside), ALIASES.get(outside, outside)), ())
