"""The golden checkpoints of openai/glow, and changed copies of them."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from openai_files import write_bundle

OPENAI = Path(__file__).parent / "data" / "openai"
FULL = OPENAI / "b_1x1_additive_5bit"  # weights, averages and slots
CONDITIONAL = OPENAI / "e_conditional_5bit"
SHUFFLED = OPENAI / "c_shuffle_affine_8bit"
SETTINGS: dict[str, Any] = json.loads((FULL / "train.txt").read_text().split("\n")[0])


def write(
    folder: Path, arrays: dict[str, np.ndarray], settings: dict[str, Any] | None = None
) -> Path:
    """A checkpoint folder; with settings, its train.txt too."""
    folder.mkdir(exist_ok=True)
    write_bundle(folder / "model_best_loss.ckpt", arrays)
    if settings is not None:
        (folder / "train.txt").write_text(json.dumps(settings) + '\n{"epoch": 1}\n')
    return folder


def same_models(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
