"""A trained Glow beside a Gaussian with full covariance, fitted to the same pixels.

    python train.py --preset digits --seed 1 --output_dir runs/digits
    python benchmarks/baseline.py runs/digits --step best --curve docs/digits_curve.png
    python benchmarks/baseline.py models/fashion_mnist --draws 1 --dataroot data

Prints a table in Markdown; writes it as JSON, with the seconds that training took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from figures import FOLDER, markdown, write
from matplotlib import pyplot
from sklearn.mixture import GaussianMixture

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.data import Readable
from glow_jax.devices import Devices
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.evaluation.likelihood import Likelihood, likelihood
from glow_jax.hub import load_run
from glow_jax.pixels import bits_per_dim, dequantize
from glow_jax.runs import read_metrics
from glow_jax.runs.metrics import Row


@dataclass(frozen=True)
class Arguments:
    """Compare a trained Glow with a full-covariance Gaussian."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder or model folder"""
    step: int | Literal["best"] | None = None
    """checkpoint: a step's number, or best on the validation split; by default the newest"""
    draws: int = 10
    """draws of the dequantisation noise, of the images that are fitted and of those evaluated"""
    dataroot: str | None = None
    """folder of the data sets; by default as in training"""
    curve: Path | None = None
    """PNG file to draw the run's bits/dim over epochs into"""
    output: Path | None = None
    """JSON file; by default docs/benchmarks/baseline_NAME.json"""


def gaussian_bits_per_dim(
    train: Readable, test: Readable, *, n_bits: int, draws: int
) -> np.ndarray:
    """Bits/dim of each test image under a Gaussian fitted to the dequantised training pixels."""

    def vectors(split: Readable, seed: int) -> np.ndarray:
        images = split[np.arange(len(split))].images
        x = dequantize(images, jax.random.key(seed), n_bits=n_bits)
        return np.asarray(x, np.float64).reshape(len(split), -1)

    fitted = np.concatenate([vectors(train, seed) for seed in range(draws)])
    # The noise alone makes the covariance positive; at 8 bits its variance is that of the default.
    gaussian = GaussianMixture(1, covariance_type="full", reg_covar=0).fit(fitted)
    found = [gaussian.score_samples(vectors(test, draws + seed)) for seed in range(draws)]
    nats = np.mean(found, axis=0)
    return np.asarray(bits_per_dim(nats, train.image_shape, n_bits=n_bits))


def draw_curve(rows: Sequence[Row], path: Path) -> None:
    """Draw bits/dim of all splits over epochs."""
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for split in ("train", "validation", "test"):
        columns = ([row[name] for row in rows] for name in ("epoch", f"{split}_bits_per_dim"))
        axes.plot(*(np.array(column, np.float64) for column in columns), label=split)
    axes.set(xlabel="epoch", ylabel="bits/dim")
    axes.legend()
    figure.savefig(path, dpi=110)


def table(figures: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    chosen = ", chosen by the validation split" if figures["best"] else ""
    rows = [("Gaussian, full covariance", figures["gaussian"])]
    rows.append((f"Glow, step {figures['step']}{chosen}", figures["glow"]))
    return markdown(["model", "test bits/dim"], [(name, f"{bits:.3f}") for name, bits in rows])


@one_line_errors
def main() -> None:
    """Compute, print, write."""
    arguments = parse(Arguments)
    run = load_run(arguments.run, arguments.step)
    dataset = dataset_of(run, dataroot=arguments.dataroot)
    n_bits, draws = run.config.model.n_bits, arguments.draws
    of_draws: list[Likelihood] = []
    glow = likelihood(
        run.average_or_model,
        dataset.test,
        Devices(),
        batch_size=run.config.training.eval_batch_size,
        draws=draws,
        on_draw=of_draws.append,
    )
    gaussian = gaussian_bits_per_dim(dataset.train, dataset.test, n_bits=n_bits, draws=draws)
    rows = read_metrics(run.folder)
    if arguments.curve is not None:
        draw_curve(rows, arguments.curve)
    seconds = (
        value or 0.0 for row in rows for name, value in row.items() if name.startswith("seconds_")
    )
    figures = {
        "images": len(dataset.test),
        "n_bits": n_bits,
        "step": run.step,
        "best": arguments.step == "best",
        "draws": draws,
        "glow": glow.mean,
        "deviation_of_draws": float(np.std([draw.mean for draw in of_draws])),
        "gaussian": float(gaussian.mean()),
        "training_seconds": sum(seconds),
    }
    name = f"baseline_{run.config.data.dataset}.json"
    write(arguments.output or FOLDER / name, **figures)
    print(table(figures))


if __name__ == "__main__":
    main()
