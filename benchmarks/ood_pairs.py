"""The table of out-of-distribution scores: every score on every pair of data sets.

python benchmarks/ood_pairs.py models/fashion_mnist --ood mnist constant noise noisy:8 rotated
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from figures import markdown, with_interval
from machine import machine

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.ood import compare_with
from glow_jax.devices import Devices, keep_compiled_programs
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.files import write_json, write_whole
from glow_jax.hub import load_run
from glow_jax.kernels.products import PRECISION
from glow_jax.model import computing
from glow_jax.ood.measure import replicated_model
from glow_jax.ood.plots import save_pairs
from glow_jax.ood.results import Comparison
from glow_jax.ood.table import pairs_json, pairs_markdown


@dataclass(frozen=True)
class Arguments:
    """Compare each run's test images with every other data set, and write one table."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """run folders; a run's own test images are not compared with themselves"""
    ood: tuple[str, ...]
    """other data sets, as for eval.py"""
    ood_images: int | None = None
    """images of each set, as for eval.py"""
    scores: tuple[str, ...] = ()
    """scores, as for eval.py"""
    eval_batch_size: int | None = None
    """images at a time; by default as in training"""
    dataroot: str | None = None
    """folder of the data sets; by default as in training"""
    output: Path = Path("docs/benchmarks/ood_pairs")
    """where to write the table: OUTPUT.json, .md and .png"""


def compare_run(folder: Path, arguments: Arguments) -> list[Comparison]:
    """Compare one run's test images with all other data sets."""
    run = load_run(folder)
    dtype = run.config.training.dtype
    model = computing(run.average_or_model, dtype=dtype, precision=PRECISION)
    return compare_with(
        arguments.ood,
        run=run,
        flow=replicated_model(Devices(), model, step=run.step, dtype=dtype, precision=PRECISION),
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
    comparisons = [one for folder in arguments.runs for one in compare_run(folder, arguments)]
    about = {"machine": machine(), "runs": list(map(str, arguments.runs))}
    output = arguments.output
    write_json(output.with_suffix(".json"), {**about, **pairs_json(comparisons)})
    write_whole(output.with_suffix(".md"), pairs_markdown(comparisons))
    save_pairs(output.with_suffix(".png"), comparisons)
    print(f"written to {output}.json, .md and .png")


if __name__ == "__main__":
    main()
