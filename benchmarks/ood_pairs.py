"""The table of out-of-distribution scores: every score on every pair of data sets.

    python benchmarks/ood_pairs.py models/fashion_mnist=mnist,constant,noisy:8 models/mnist=noise

An interrupted command goes on where it was: each run keeps what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from figures import FOLDER, markdown, with_interval, write

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.ood import compare_with
from glow_jax.devices import Devices, keep_compiled_programs
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.hub import load_run
from glow_jax.kernels.products import PRECISION
from glow_jax.ood.measure import replicated_model
from glow_jax.ood.plots import save_pairs
from glow_jax.ood.results import Comparison
from glow_jax.ood.table import pairs_json


@dataclass(frozen=True)
class Arguments:
    """Compare runs' test images with other data sets, and write one table."""

    pairs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """RUN=SET,SET,...: a run, and the data sets to compare its test images with, as for eval.py"""
    ood_images: int | None = None
    """images of each set, as for eval.py"""
    scores: tuple[str, ...] = ()
    """scores, as for eval.py"""
    eval_batch_size: int | None = None
    """images at a time; by default as in training"""
    dataroot: str | None = None
    """folder of the data sets; by default as in training"""
    output: Path = FOLDER / "ood_pairs.json"
    """where to write the table; a picture of it lies beside it"""


def sets_of(pair: str) -> tuple[str, list[str]]:
    """The run and the names of the data sets in RUN=SET,SET,...

    Raises:
        GlowError: there is no data set.
    """
    folder, _, names = pair.rpartition("=")
    if not (folder and names):
        raise GlowError(f"{pair} names no data set: give RUN=SET,SET,...")
    return folder, names.split(",")


def compare_run(folder: str, names: Sequence[str], arguments: Arguments) -> list[Comparison]:
    """Compare one run's test images with its other data sets."""
    run = load_run(folder)
    flow = replicated_model(
        Devices(),
        run.average_or_model,
        step=run.step,
        dtype=run.config.training.dtype,
        precision=PRECISION,
    )
    return compare_with(
        names,
        run=run,
        flow=flow,
        dataset=dataset_of(run, dataroot=arguments.dataroot),
        scores=arguments.scores,
        most_images=arguments.ood_images,
        batch_size=arguments.eval_batch_size or run.config.training.eval_batch_size,
        dataroot=arguments.dataroot,
        download=True,
    )


def table(found: Mapping[str, Any]) -> str:
    """AUROC of every score on every pair, with intervals, in Markdown."""
    pairs = [pair.split(" / ") for pair in found["pairs"]]
    are_several = len({inside for inside, _ in pairs}) > 1
    columns = [" / ".join(pair) if are_several else pair[1] for pair in pairs]
    rows = [
        [row["title"], *(with_interval(one) if one else "" for one in row["pairs"])]
        for row in found["auroc"].values()
    ]
    return markdown(["score", *columns], rows)


@one_line_errors
def main() -> None:
    """Compare, which prints, and write the table."""
    arguments = parse(Arguments)
    keep_compiled_programs()
    pairs = [sets_of(pair) for pair in arguments.pairs]
    comparisons = [one for pair in pairs for one in compare_run(*pair, arguments)]
    write(arguments.output, **pairs_json(comparisons))
    save_pairs(arguments.output.with_suffix(".png"), comparisons)
    print(f"written to {arguments.output}, with a picture beside it")


if __name__ == "__main__":
    main()
