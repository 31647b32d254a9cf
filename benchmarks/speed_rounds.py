"""Rounds of the speed benchmark: every side once in each, in turn."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import product

import numpy as np
from architectures import MODELS, ModelName, forward_flop
from workers import Worker

from glow_jax.config import Config, TrainingConfig
from glow_jax.errors import GlowError, shown
from glow_jax.flow import GradientMemory
from glow_jax.kernels.products import Precision

SIDES = {
    "jax": "glow-jax",
    "torch": "reference",
    "torch_layers": "layer by layer",
    "torch_compiled": "torch.compile",
}
TASKS = {"training": 3.0, "likelihood": 1.0, "sampling": 1.0}
"""Every task, and its operations in units of a forward pass."""


@dataclass(frozen=True)
class Case:
    """A model at one batch size, and how it is measured.

    Attributes:
        model: its name.
        batch_size: images in a batch.
        memory: what JAX's gradient keeps.
        rounds: times that every side is measured.
        precisions: JAX's; PyTorch may use TF32 wherever JAX's is not the highest.
        seconds: what a measurement takes, roughly.
        size: rows of the square matrices whose product is the machine's peak.
        sides: those of `SIDES` that are measured.
        until: the time, by `time.monotonic`, when measuring ends.
        compiling: seconds that `torch.compile` may take before it is left out.
    """

    model: ModelName
    batch_size: int
    memory: GradientMemory
    rounds: int
    precisions: tuple[Precision, ...] = ("highest",)
    seconds: float = 2.0
    size: int = 2048
    sides: tuple[str, ...] = tuple(SIDES)
    until: float = math.inf
    compiling: float = math.inf


@dataclass(frozen=True)
class Row:
    """One task of a case; each side's rates in images a second, round by round.

    `failures` says of every side without rates why it has none.
    """

    model: ModelName
    task: str
    batch_size: int
    precision: Precision
    rates: dict[str, list[float]]
    peak_flops: list[float]
    flop_per_image: float
    failures: dict[str, str]

    def ratios(self, side: str) -> list[float]:
        """JAX's rate over another side's, round by round."""
        return [a / b for a, b in zip(self.rates["jax"], self.rates[side], strict=True)]

    def share_of_peak(self, side: str) -> float:
        """Median share of the machine's peak that the products of the convolutions reach."""
        pairs = zip(self.rates[side], self.peak_flops, strict=True)
        return float(np.median([rate * self.flop_per_image / peak for rate, peak in pairs]))


def measure(case: Case) -> Iterator[Row]:
    """Every task at every precision.

    Raises:
        GlowError: a process could not be started in time.
    """
    with ExitStack() as stack:
        workers, failures = start(case, stack)
        for task, precision in product(TASKS, case.precisions):
            if time.monotonic() < case.until:
                yield _row(case, task, precision, workers, failures)


def start(case: Case, stack: ExitStack) -> tuple[dict[str, Worker], dict[str, str]]:
    """The processes of the sides, with one model, compiled; and why others have none."""
    training = TrainingConfig(seed=1, batch_size=case.batch_size)
    config = Config(model=MODELS[case.model], training=training)
    jax_options = (config, case.memory, case.precisions)
    workers = {"jax": stack.enter_context(Worker("speed_jax", *jax_options, until=case.until))}
    leaves_and_x = workers["jax"].ask("model_and_input")
    together = tuple(name for name in ("torch", "torch_layers") if name in case.sides)
    for names in (together, tuple({"torch_compiled"} & set(case.sides))):
        if names:
            options = (config, names, *leaves_and_x)
            worker = stack.enter_context(Worker("speed_torch", *options, until=case.until))
            workers |= dict.fromkeys(names, worker)
    compiled = workers.get("torch_compiled")
    if compiled is not None:
        compiled.until = min(case.until, time.monotonic() + case.compiling)
    different = {id(worker): (name, worker) for name, worker in workers.items()}
    for _, worker in different.values():  # all at once
        worker.begin("warm_up", list(TASKS))
    failures = {}
    for name, worker in different.values():
        try:
            worker.answer()
        except GlowError as error:
            failures[name] = last_line(error)
    for name in list(failures):  # alone: the others may have held the memory
        with suppress(GlowError):
            workers[name].ask("warm_up", list(TASKS))
            del failures[name]
    if compiled is not None:
        compiled.until = case.until
    if "torch_compiled" in failures:
        del workers["torch_compiled"]
    return workers, {k: why for k, why in failures.items() if k not in workers}


def _row(
    case: Case,
    task: str,
    precision: Precision,
    workers: Mapping[str, Worker],
    failures: Mapping[str, str],
) -> Row:
    rates: dict[str, list[float]] = {}
    failed, repeats = dict(failures), {}

    def run(name: str, times: int) -> float:
        try:
            return workers[name].ask("run", name, precision, task, times)
        except GlowError as error:
            failed[name] = last_line(error)
            rates.pop(name, None)
            return math.nan

    for name in workers:
        rates[name] = []
        taken = run(name, 1)
        repeats[name] = 1 if math.isnan(taken) else max(1, round(case.seconds / taken))
    peaks = []
    for number in range(case.rounds):
        both = [name for name in ("jax", "torch") if name in rates]
        if not both:
            break
        peaks.append(max(workers[name].ask("peak", precision, case.size) for name in both))
        for name in list(rates)[:: 1 if number % 2 == 0 else -1]:
            taken = run(name, repeats[name])
            if name in rates:
                rates[name].append(case.batch_size * repeats[name] / taken)
    flop = TASKS[task] * forward_flop(MODELS[case.model])
    about = (case.model, task, case.batch_size, precision)
    return Row(*about, rates, peaks, flop, failed)


def last_line(error: Exception) -> str:
    """The last line of an error: of a process's traceback, what was raised."""
    lines = str(error).strip().splitlines()
    return shown(lines[-1] if lines else type(error).__name__)


def cells(row: Row) -> dict[str, str]:
    """A row of the table: its cells under their columns' names."""
    found = {"images/s": row.task, "model": row.model, "batch": str(row.batch_size)}
    for side, label in SIDES.items():
        there = side in row.rates
        found[label] = f"{np.median(row.rates[side]):.1f}" if there else "-"
    for side, label in list(SIDES.items())[1:]:
        over = f"{'glow-jax ' if side == 'torch' else ''}over {label}"
        found[over] = "-"
        if side in row.rates and "jax" in row.rates:
            ratios = row.ratios(side)
            spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
            found[over] = f"**{np.median(ratios):.2f}** {spread}"
    shares = (f"{row.share_of_peak(side):.0%}" if side in row.rates else "-" for side in SIDES)
    return found | {"of peak": ", ".join(shares)}
