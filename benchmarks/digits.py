"""The README's table of digits: a trained Glow beside a Gaussian fitted to the same pixels.

python benchmarks/digits.py runs/digits --curve docs/digits_curve.png
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from matplotlib import pyplot
from sklearn.mixture import GaussianMixture

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config import DataConfig
from glow_jax.data import Readable, load_dataset
from glow_jax.devices import Devices
from glow_jax.evaluation.likelihood import likelihood
from glow_jax.pixels import bits_per_dim, dequantize
from glow_jax.runs import load_run, read_metrics

_DRAWS = 10


@dataclass(frozen=True)
class Arguments:
    """Compare a Glow trained on digits with a full-covariance Gaussian."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder of a Glow trained on digits"""
    curve: Path | None = None
    """PNG file to draw the run's bits/dim over epochs into"""


def gaussian_bits_per_dim(train: Readable, test: Readable, *, n_bits: int) -> np.ndarray:
    """Bits/dim of each test image under a Gaussian fitted to the dequantised training pixels."""

    def vectors(split: Readable, seed: int) -> np.ndarray:
        images = split[np.arange(len(split))].images
        x = dequantize(images, jax.random.key(seed), n_bits=n_bits)
        return np.asarray(x, np.float64).reshape(len(split), -1)

    fitted = np.concatenate([vectors(train, seed) for seed in range(_DRAWS)])
    gaussian = GaussianMixture(1, covariance_type="full").fit(fitted)
    draws = [gaussian.score_samples(vectors(test, _DRAWS + seed)) for seed in range(_DRAWS)]
    nats = np.mean(draws, axis=0)
    return np.asarray(bits_per_dim(nats, train.image_shape, n_bits=n_bits))


def draw_curve(run: Path, path: Path) -> None:
    """Draw bits/dim of all splits over epochs, from `metrics.jsonl`."""
    rows = read_metrics(run)
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for split in ("train", "validation", "test"):
        columns = ([row[name] for row in rows] for name in ("epoch", f"{split}_bits_per_dim"))
        axes.plot(*(np.array(column, np.float64) for column in columns), label=split)
    axes.set(xlabel="epoch", ylabel="bits/dim")
    axes.legend()
    figure.savefig(path, dpi=110)


@one_line_errors
def main() -> None:
    """Print the table in Markdown."""
    arguments = parse(Arguments)
    digits = load_dataset(DataConfig(dataset="digits"))
    run = load_run(arguments.run, "best")
    glow = likelihood(run.average_or_model, digits.test, Devices(), batch_size=360, draws=_DRAWS)
    gaussian = gaussian_bits_per_dim(digits.train, digits.test, n_bits=run.config.model.n_bits)
    if arguments.curve is not None:
        draw_curve(arguments.run, arguments.curve)
    print("| model | test bits/dim |\n|---|---|")
    print(f"| Gaussian, full covariance | {gaussian.mean():.3f} |")
    print(f"| Glow, step {run.step}, chosen by the validation split | {glow.mean:.3f} |")


if __name__ == "__main__":
    main()
