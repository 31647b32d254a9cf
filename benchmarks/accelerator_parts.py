"""The parts of the benchmark of accelerators. Each gives what it found piece by piece."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from architectures import MODELS, ModelName
from hindered_runs import RUN, Runs, require, state, wait_for
from peaks import published_peak
from speed_rounds import SIDES, TASKS, Case, Row, cells, last_line, measure
from workers import Worker

from glow_jax.config import Config, TrainingConfig
from glow_jax.errors import GlowError
from glow_jax.flow import GradientMemory
from glow_jax.kernels.products import Precision
from glow_jax.runs import whole_steps

MIB = 2**20


@dataclass(frozen=True)
class Task:
    """What is to be measured, and where.

    Attributes:
        model: the model's name.
        batch_size: of every part but `speed`.
        batch_sizes: of `speed`, the most important first.
        steps: of the trainings.
        rounds: of `speed`.
        card: the accelerator's name; "cpu" on a CPU.
        without_reference: why the PyTorch reference cannot compute there; None if it can.
        until: the time, by `time.monotonic`, when the part ends.
    """

    model: ModelName
    batch_size: int
    batch_sizes: tuple[int, ...]
    steps: int
    rounds: int
    card: str
    without_reference: str | None
    until: float

    @property
    def config(self) -> Config:
        """The model in training."""
        training = TrainingConfig(seed=1, batch_size=self.batch_size)
        return Config(model=MODELS[self.model], training=training)


class Entry(NamedTuple):
    """A row of a part's table: all of it, and its cells under their columns' names."""

    record: dict[str, object]
    cells: dict[str, str]


class LeftOut(Exception):  # noqa: N818 - nothing has failed
    """A part cannot be measured here; the message says why."""


Found = Iterator[Entry | str]
"""Entries, and sentences about what was left out."""


@contextmanager
def untuned() -> Iterator[None]:
    """Have XLA not try every kernel for a GPU first, in processes that start meanwhile.

    That takes most of the time to compile. Other kernels sum in another order, so results differ by
    rounding.
    """
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{before or ''} --xla_gpu_autotune_level=0".strip()
    try:
        yield
    finally:
        del os.environ["XLA_FLAGS"]
        if before is not None:
            os.environ["XLA_FLAGS"] = before


def parity(task: Task) -> Found:
    """JAX beside the PyTorch reference in float32: the largest differences, and their bounds."""
    if task.without_reference:
        raise LeftOut(task.without_reference)
    beyond = []
    with untuned(), Worker("parity", task.config, until=task.until) as side:
        precisions: tuple[Precision, ...] = ("highest", "high")
        for precision in precisions:
            for figure in side.ask("figures", precision):
                bounded = precision == "highest"
                if bounded and not figure.holds:
                    beyond.append(figure.name)
                bound = f"{figure.tolerance:.1e}" if bounded else "none"
                yield Entry(
                    {"precision": precision, **asdict(figure)},
                    {
                        "precision": precision,
                        "": figure.name,
                        "largest difference": f"{figure.difference:.1e}",
                        "bound": bound,
                    },
                )
    if beyond:
        raise GlowError(f"At the highest precision these exceed their bounds: {', '.join(beyond)}.")


def memory(task: Task) -> Found:
    """What each memory takes and how long the programs compile, each mode in its own process."""
    modes: tuple[GradientMemory, ...] = get_args(GradientMemory)
    for mode in modes:
        options = (task.config, mode, ("highest",))
        with Worker("speed_jax", *options, until=task.until) as side:
            seconds, temporary = side.ask("compile_training", "highest")
            side.ask("run", "jax", "highest", "training", 1)
            yield _compiled(f"training, {mode}", seconds, temporary, side.ask("most_bytes"))
            if mode == modes[-1]:
                for name in ("likelihood", "sampling"):
                    seconds = side.ask("compile_by_calling", "highest", name)
                    yield _compiled(name, seconds, None, None)


def _compiled(name: str, seconds: float, temporary: int | None, most: int | None) -> Entry:
    def mib(number: int | None) -> str:
        return "-" if number is None else f"{number / MIB:.1f}"

    record = {"program": name, "seconds": seconds, "temporary": temporary, "most": most}
    columns = ("", "to compile, s", "temporary memory, MiB", "most in use, MiB")
    return Entry(
        record, dict(zip(columns, (name, f"{seconds:.1f}", mib(temporary), mib(most)), strict=True))
    )


def training(task: Task) -> Found:
    """Short trainings at each precision, and one that starts from slightly other parameters."""
    with untuned(), Worker("curves", task.config, task.steps, until=task.until) as side:
        for precision, change in (
            ("highest", 0.0),
            ("high", 0.0),
            ("highest", 1e-6),
            ("default", 0.0),
        ):
            name = f"{precision}, start moved by {change:g}" if change else precision
            found = side.ask("train", precision, change)
            yield Entry(
                {"precision": precision, "change": change, **found._asdict()},
                {
                    "precision": name,
                    "bits/dim of the last steps": f"{found.last:.4f}",
                    "of unseen squares, measured at highest": f"{found.unseen:.4f}",
                    "measured as trained": f"{found.measured:.4f}",
                    "s": f"{found.seconds:.1f}",
                },
            )


def resume(task: Task) -> Found:
    """A run that is killed and resumed, beside one that is not."""

    def finish(runs: Runs, name: str, *flags: str) -> Path:
        limit = max(1.0, task.until - time.monotonic())
        status, output = runs.finish(runs.place / name, *flags, limit=limit)
        require(status == 0, output)
        return runs.place / name

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        runs = Runs(Path(place))
        undisturbed = finish(runs, "undisturbed", *RUN)
        killed = runs.place / "killed"
        run = runs.start(killed, *RUN)
        wait_for(lambda: len(whole_steps(killed)) > 1 or time.monotonic() > task.until, run)
        run.kill()
        run.communicate()
        require(len(whole_steps(killed)) > 1, "The run saved no two checkpoints in its time.")
        at = max(whole_steps(killed))
        apart = _apart(finish(runs, "killed", "--resume"), undisturbed)
        yield _resumed(f"killed after step {at} and resumed", apart)
        if not apart:
            return
        # Do two runs that nothing disturbs agree?
        by_chance = _apart(finish(runs, "again", *RUN), undisturbed)
        yield _resumed("not disturbed either", by_chance)
        if not apart <= by_chance:
            raise GlowError("A resumed run differs by more than two that nothing disturbed.")


def _apart(one: Path, other: Path) -> float:
    pairs = zip(state(one)[0], state(other)[0], strict=True)
    return float(np.max([np.max(np.abs(a - b), initial=0) for a, b in pairs]))


def _resumed(name: str, apart: float) -> Entry:
    shown = f"{apart:.1e}" if apart else "none"
    return Entry(
        {"run": name, "difference": apart},
        {"run": name, "largest difference of final parameters": shown},
    )


def speed(task: Task) -> Found:
    """Rates of every side, as PyTorch computes by default and in float32."""
    sides = tuple(SIDES)
    if task.without_reference:
        yield f"Without PyTorch: {task.without_reference}"
        sides = ("jax",)
    if published_peak(task.card) is None:
        yield f"No published peak of {task.card} is known here; its own products are the measure."
    longest, measured = 0.0, 0
    for batch_size in task.batch_sizes:
        started = time.monotonic()
        left = task.until - started
        if left < longest:
            yield f"Batch {batch_size} was left out: {left:.0f} s were left."
            continue
        case = Case(
            task.model,
            batch_size,
            "fast",
            task.rounds,
            precisions=("high", "highest"),
            seconds=0.3,
            size=2048 if task.card == "cpu" else 8192,
            sides=sides,
            until=task.until,
            compiling=left / 2,
        )
        rows = 0
        try:
            for row in measure(case):
                rows += 1
                yield Entry(asdict(row), _speed_cells(row, task.card))
                yield from (
                    f"{SIDES[side]} at batch {batch_size}, {row.task}: {why}"
                    for side, why in row.failures.items()
                )
        except GlowError as error:
            yield f"Batch {batch_size} ended early: {last_line(error)}"
        if rows < len(TASKS) * len(case.precisions):
            yield f"Batch {batch_size} has {rows} of {len(TASKS) * len(case.precisions)} rows."
        measured += rows
        longest = max(longest, time.monotonic() - started)
    if not measured:
        raise GlowError("No speed was measured.")


def _speed_cells(row: Row, card: str) -> dict[str, str]:
    found = cells(row)
    arithmetic = "float32" if row.precision == "highest" else "TF32 allowed"
    peak = published_peak(card)
    share = "-"
    if peak is not None and "jax" in row.rates:
        median = float(np.median(row.rates["jax"]))
        share = f"{median * row.flop_per_image / peak.at(row.precision):.0%}"
    return {"arithmetic": arithmetic, **found, "glow-jax of the published peak": share}


PARTS: dict[str, tuple[Callable[[Task], Found], float]] = {
    "parity": (parity, 90),
    "memory": (memory, 150),
    "training": (training, 90),
    "resume": (resume, 60),
    "speed": (speed, 600),
}
"""Every part, and the seconds that it may take of ten minutes."""


def limited(task: Task, seconds: float, end: float) -> Task:
    """The task of a part that may take so long, but not beyond the end."""
    return replace(task, until=min(end, time.monotonic() + seconds))
