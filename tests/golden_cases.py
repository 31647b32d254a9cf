"""The golden cases in tests/data: checkpoints of the public implementations, and their numbers."""

from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"

# Made by y0ast/Glow-PyTorch, with its training.
PUBLISHED = (
    "additive_lu_grey",
    "affine_lu",
    "additive_plain",
    "affine_lu_conditional",
    "affine_reverse_no_learn_top",
)
# Training takes longest, so the everyday suite trains one.
TRAINED = [
    name if name == "affine_lu_conditional" else pytest.param(name, marks=pytest.mark.slow)
    for name in PUBLISHED
]
ROSINALITY = ("rosinality_affine_lu", "rosinality_additive_plain")
CHAIYUJIN = ("chaiyujin_affine_lu_conditional", "chaiyujin_additive_plain")


def load_arrays(name: str) -> dict[str, np.ndarray]:
    """The inputs and outputs of a case."""
    with np.load(DATA / name / "golden.npz") as arrays:
        return dict(arrays)
