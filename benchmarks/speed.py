"""Training, likelihood and sampling against the project's PyTorch reference, in turn.

    python benchmarks/speed.py                       (the table and plot of docs/; needs PyTorch)
    python benchmarks/speed.py --models published --batch_sizes 16 --rounds 3

All compute the same Glow in float32 with the same number of threads, in turn: JAX in one process;
in another the PyTorch reference of `convert/`, and the same layer by layer, as Glow-PyTorch
computes; and in a third the reference compiled by `torch.compile`. One of them runs at a time, the
other processes wait. JAX's figures include what PyTorch's leave out: dequantising the batch, the
gradient's norm and the check that it is finite, drawing a sample's noise. What is compared is the
median, and a quotient is the median of the rounds' quotients. The machine's peak is the faster of
both libraries' products of two square matrices, measured between the rounds. Writes the table as
Markdown and JSON, and the published model's as a plot where it has several batch sizes.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from architectures import ModelName
from figures import FOLDER, markdown
from speed_rounds import SIDES, TASKS, Case, Row, cells, measure
from workers import Worker

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.errors import GlowError
from glow_jax.files import write_json, write_whole
from glow_jax.flow import GradientMemory

BATCH_SIZES: dict[ModelName, tuple[int, ...]] = {
    "published": (1, 4, 16),
    "small": (64,),
    "tiny": (2, 4),
}


@dataclass(frozen=True)
class Arguments:
    """What is measured."""

    models: tuple[ModelName, ...] = ("published", "small")
    batch_sizes: tuple[int, ...] = ()
    """batch sizes in place of each model's own"""
    memory: GradientMemory = "fast"
    """what JAX's gradient keeps"""
    rounds: int = 5
    seconds: float = 2.0
    """what a measurement takes, roughly"""
    huge_pages: bool = True
    """let the C library use huge pages under Linux, for both libraries"""
    output: Path = FOLDER / "speed"
    """where the tables and the plot go, without their endings"""


def table(results: Mapping[str, Any]) -> str:
    """The table in Markdown, and what it was measured on."""
    rows = [Row(**row) for row in results["rows"]]
    ordered = sorted(rows, key=lambda row: (row.model != "published", list(TASKS).index(row.task)))
    of_rows = markdown(list(cells(rows[0])), [list(cells(row).values()) for row in ordered])
    missing = {f"{SIDES[side]}: {why}" for row in rows for side, why in row.failures.items()}
    order = "the shares of the peak are in the order of the images/s columns"
    return "\n".join([of_rows, f"({results['machine']}; {order}.)", *sorted(missing)]) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """Images a second over batch size, a panel for each task."""
    figure, axes = plt.subplots(1, len(TASKS), figsize=(11, 3.5), layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        of_task = [row for row in rows if row.task == task]
        for side, label in SIDES.items():
            there = [row for row in of_task if side in row.rates]
            medians = [np.median(row.rates[side]) for row in there]
            axis.plot([row.batch_size for row in there], medians, "o-", label=label)
        sizes = [row.batch_size for row in of_task]
        axis.set(title=task, xlabel="batch size", xscale="log", ylim=(0, None))
        axis.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes[0].set_ylabel("images/s")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def write(arguments: Arguments, machine: str, rows: list[Row]) -> str:
    """Everything that was measured, as JSON, Markdown and a plot; return the Markdown."""
    about = {**asdict(arguments), "output": str(arguments.output)}
    results = {"machine": machine, "arguments": about, "rows": [asdict(row) for row in rows]}
    write_json(arguments.output.with_suffix(".json"), results)
    write_whole(arguments.output.with_suffix(".md"), table(results))
    of_plot = [row for row in rows if row.model == rows[0].model]
    if len({row.batch_size for row in of_plot}) > 1:
        plot(of_plot, arguments.output.with_suffix(".png"))
    return table(results)


@one_line_errors
def main() -> None:
    """Measure, print, write."""
    arguments = parse(Arguments)
    if arguments.huge_pages:  # read by the C library of each process that starts
        os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    with Worker("machine") as here:
        machine, missing = here.ask("machine"), here.ask("without_reference")
    if missing:
        raise GlowError(f"The reference cannot be measured here: {missing}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    text = ""
    for name in arguments.models:
        for batch_size in arguments.batch_sizes or BATCH_SIZES[name]:
            case = Case(
                name, batch_size, arguments.memory, arguments.rounds, seconds=arguments.seconds
            )
            started = time.monotonic()
            rows += measure(case)
            print(f"{name}, batch {batch_size}: {time.monotonic() - started:.0f} s", flush=True)
            text = write(arguments, machine, rows)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
