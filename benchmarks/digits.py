"""The README's table of digits: a trained Glow beside a Gaussian fitted to the same pixels.

    python benchmarks/digits.py runs/digits
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from scipy.stats import multivariate_normal

from glow_jax.checkpoint import load_run
from glow_jax.cli import one_line_errors, parse
from glow_jax.config import DataConfig
from glow_jax.data import Split, load_dataset
from glow_jax.dequantize import bits_per_dim, dequantize
from glow_jax.evaluation.likelihood import make_likelihood
from glow_jax.model import take_apart
from glow_jax.parallel import DataParallel

_DRAWS = 10


@dataclass(frozen=True)
class Arguments:
    """Compare a Glow trained on digits with a full-covariance Gaussian."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder of a Glow trained on digits"""


def gaussian_bits_per_dim(train: Split, test: Split, *, n_bits: int) -> np.ndarray:
    """Bits/dim of each test image under a Gaussian fitted to the dequantised training pixels."""

    def vectors(split: Split, seed: int) -> np.ndarray:
        x = dequantize(split.images, jax.random.key(seed), n_bits=n_bits)
        return np.asarray(x, np.float64).reshape(len(split), -1)

    fitted = np.concatenate([vectors(train, seed) for seed in range(_DRAWS)])
    gaussian = multivariate_normal(fitted.mean(axis=0), np.cov(fitted, rowvar=False))
    height, width, channels = train.images.shape[1:]
    draws = [gaussian.logpdf(vectors(test, _DRAWS + seed)) for seed in range(_DRAWS)]
    nats = np.mean(draws, axis=0)
    return np.asarray(bits_per_dim(nats, (height, width, channels), n_bits=n_bits))


@one_line_errors
def main() -> None:
    """Print the table in Markdown."""
    arguments = parse(Arguments)
    digits = load_dataset(DataConfig(dataset="digits"))
    run = load_run(arguments.run, "best")
    parts, parallel = take_apart(run.best_model), DataParallel()
    likelihood = make_likelihood(parallel, parts.graph, run.config.model, batch_size=360)
    glow = likelihood(parallel.replicate((parts.params, parts.buffers)), digits.test, _DRAWS)
    gaussian = gaussian_bits_per_dim(digits.train, digits.test, n_bits=run.config.model.n_bits)
    print("| model | test bits/dim |\n|---|---|")
    print(f"| Gaussian, full covariance | {gaussian.mean():.3f} |")
    print(f"| Glow, step {run.step}, chosen by the validation split | {glow.mean:.3f} |")


if __name__ == "__main__":
    main()
