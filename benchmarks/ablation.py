"""What each part of a recipe is worth on Fashion-MNIST, at equal time.

    python benchmarks/ablation.py --dataroot data --place FOLDER   # hours; the same again goes on

Every recipe is a run of train.py. First each runs for two epochs, in turn: from that the number of
epochs follows that takes as long as `--epochs` of the first recipe, rounded to whole ones. Then
every recipe is trained with every seed. What counts is bits/dim of images held out of training:
the test images are not looked at. Writes what came of it as JSON.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from figures import FOLDER, REPOSITORY, markdown, write

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.errors import GlowError
from glow_jax.runs import read_metrics

BASE: dict[str, str] = {
    "K": "8",
    "hidden_channels": "32",
    "validation": "0.1",
    "batch_size": "32",
    "accumulate": "1",
    "optimizer": "adam",
    "lr": "2e-3",
    "warmup": "0",
    "schedule": "cosine",
    "ema_decay": "0.999",
    "dequantization": "uniform",
}
"""The first recipe; every other one differs from it by what its row says."""

RECIPES: dict[str, dict[str, str]] = {
    "the recipe": {},
    "constant rate": {"schedule": "constant"},
    "constant rate, half of it": {"schedule": "constant", "lr": "1e-3"},
    "no averaging": {"ema_decay": "0"},
    "variational dequantisation": {"dequantization": "variational"},
    "batch 64": {"batch_size": "64"},
    "batch 512, accumulated": {"batch_size": "64", "accumulate": "8"},
    "batch 512, four times the rate": {"batch_size": "64", "accumulate": "8", "lr": "8e-3"},
    "adam, warm-up of an epoch": {"warmup": "1"},
    "adamax": {"optimizer": "adamax"},
    "adamax, twice the rate": {"optimizer": "adamax", "lr": "4e-3"},
    "told the class": {"y_condition": ""},
    "adamax, twice the rate, warm-up": {"optimizer": "adamax", "lr": "4e-3", "warmup": "1"},
}


@dataclass(frozen=True)
class Arguments:
    """Compare recipes at equal time."""

    place: Path
    """folder of the runs; one that is finished is not run again"""
    dataroot: Path = Path("data")
    """where Fashion-MNIST is, prepared"""
    epochs: int = 6
    """epochs of the first recipe; the others have as many as take the same time"""
    seeds: tuple[int, ...] = (1, 2, 3)
    recipes: tuple[str, ...] = tuple(RECIPES)
    output: Path = FOLDER / "ablation.json"


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        seed: its seed.
        bits_per_dim: of the images held out, after the last epoch.
        skipped: updates that were skipped, because their gradient was not finite.
    """

    seed: int
    bits_per_dim: float
    skipped: int


@dataclass(frozen=True)
class Row:
    """A recipe and what came of it.

    Attributes:
        recipe: its name.
        changes: flags that differ from the first recipe's.
        epochs: how long it was trained.
        relative_time: an epoch's time over that of the first recipe, times the epochs' quotient.
        outcomes: a run for each seed.
    """

    recipe: str
    changes: Mapping[str, str]
    epochs: int
    relative_time: float
    outcomes: list[Outcome]


def train(arguments: Arguments, recipe: str, seed: int, epochs: int) -> Path:
    """Train a recipe, or go on where it was stopped; the run folder."""
    folder = arguments.place / f"{recipe.replace(', ', '-').replace(' ', '_')}-{epochs}-{seed}"
    flags = BASE | RECIPES[recipe]
    command = [sys.executable, "train.py", "--preset", "fashion_mnist-small"]
    for name, value in flags.items():
        command += [f"--{name}", value] if value else [f"--{name}"]
    command += ["--dataroot", str(arguments.dataroot), "--no_download", "--seed", str(seed)]
    command += ["--epochs", str(epochs), "--checkpoint_every", "5m"]
    if (folder / "checkpoints").is_dir():
        command = [sys.executable, "train.py", "--resume"]
    elif folder.exists():
        command.append("--fresh")  # stopped before its first checkpoint
    rows = read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    if len(rows) < epochs:
        done = subprocess.run([*command, "--output_dir", str(folder)], cwd=REPOSITORY, check=False)
        if done.returncode:
            raise GlowError(f"{recipe}, seed {seed}: train.py ended with {done.returncode}.")
    return folder


def seconds_of_an_epoch(folder: Path) -> float:
    """Time of training alone, in a run's last epoch: the first one compiles."""
    return float(str(read_metrics(folder)[-1]["seconds_training"]))


def outcome(folder: Path, seed: int) -> Outcome:
    """What a finished run came to."""
    rows = read_metrics(folder)
    bits = float(str(rows[-1]["validation_bits_per_dim"]))
    return Outcome(seed, bits, sum(int(str(row["skipped_updates"])) for row in rows))


def table(found: Mapping[str, Any]) -> str:
    """The recipes in Markdown, the best first: bits/dim of the images held out, by seed."""
    seeds = [one["seed"] for one in found["rows"][0]["outcomes"]]
    rows = []
    for row in sorted(found["rows"], key=lambda row: np.mean(bits_of(row))):
        cells = [f"{bits:.3f}" for bits in bits_of(row)]
        rows.append([row["recipe"], row["epochs"], f"{row['relative_time']:.2f}", *cells])
        if len(seeds) > 1:
            mean, error = over_the_first(found, row["recipe"])
            more = f"{mean:+.3f} +- {error:.3f}" if row["changes"] else "-"
            rows[-1] += [f"{np.mean(bits_of(row)):.3f}", more]
    compared = ["mean", "over the first recipe"] if len(seeds) > 1 else []
    columns = ["recipe", "epochs", "time", *(f"seed {seed}" for seed in seeds), *compared]
    return markdown(columns, rows)


def bits_of(row: Mapping[str, Any]) -> list[float]:
    """A recipe's bits/dim, by seed."""
    return [one["bits_per_dim"] for one in row["outcomes"]]


def over_the_first(found: Mapping[str, Any], recipe: str) -> tuple[float, float]:
    """What a recipe needs more than the first one, seed by seed: the mean, its standard error."""
    rows = {row["recipe"]: bits_of(row) for row in found["rows"]}
    more = np.subtract(rows[recipe], next(iter(rows.values())))
    return float(np.mean(more)), float(np.std(more, ddof=1)) / len(more) ** 0.5


@one_line_errors
def main() -> None:
    """Measure epochs, train, and write the table anew after each run."""
    arguments = parse(Arguments)
    unknown = set(arguments.recipes) - set(RECIPES)
    if unknown:
        raise GlowError(f"There is no recipe {min(unknown)!r}; there are {', '.join(RECIPES)}.")
    first, *_ = RECIPES
    seconds = {
        recipe: seconds_of_an_epoch(train(arguments, recipe, 0, 2))
        for recipe in dict.fromkeys((first, *arguments.recipes))
    }
    budget = arguments.epochs * seconds[first]
    rows: dict[str, Row] = {}
    for recipe in arguments.recipes:
        epochs = max(1, round(budget / seconds[recipe]))
        time = epochs * seconds[recipe] / budget
        rows[recipe] = Row(recipe, RECIPES[recipe], epochs, time, outcomes=[])
    for seed in arguments.seeds:
        for recipe, row in rows.items():
            row.outcomes.append(outcome(train(arguments, recipe, seed, row.epochs), seed))
            done = [asdict(row) for row in rows.values() if row.outcomes]
            write(arguments.output, base=BASE, rows=done)


if __name__ == "__main__":
    main()
