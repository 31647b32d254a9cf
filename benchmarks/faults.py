"""Hinder real runs of train.py in every way we know, and see that they go on exactly.

python benchmarks/faults.py --kills 50
python benchmarks/faults.py --kills 760 --place FOLDER    # an hour; the same again goes on

Prints a table in Markdown, writes it as JSON, and exits with status 1 where a row of it failed.
Full and read-only disks are small file systems in memory, which takes Linux and root; without,
those rows say so.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import FOLDER, markdown, write
from hindered_runs import (
    EPOCHS,
    RUN,
    Failure,
    Runs,
    one_line,
    require,
    require_identical,
    state,
    wait_for,
)
from kills import kill_at_random

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.runs import load_run, whole_steps


@dataclass(frozen=True)
class Arguments:
    """Inject faults into runs of train.py."""

    kills: int = 50
    """runs that are killed, a third of them during a save"""
    seed: int = 0
    """seed of the moments"""
    place: Path | None = None
    """folder that keeps the killed runs, so that the same command goes on; else a temporary one"""
    output: Path = FOLDER / "faults.json"


def signals(runs: Runs, undisturbed: Path) -> str:
    """SIGTERM and Ctrl-C."""
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        folder = runs.place / f"signal-{status}"
        run = runs.start(folder, *RUN)
        wait_for(lambda folder=folder: len(whole_steps(folder)) > 1, run)
        run.send_signal(number)
        output, errors = run.communicate()
        require(run.returncode == status, f"exit status {run.returncode}:\n{output}{errors}")
        require("Traceback" not in errors, errors)
        command = re.search(r"python (train\.py .* --resume)", output)
        require(command is not None, f"no command to resume:\n{output}")
        status, output = runs.finish(folder, "--resume")
        require(status == 0, output)
        require_identical(folder, undisturbed)
    return "exit 143 and 130, resumed exactly"


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A file system of a few megabytes."""
    place.mkdir()
    options = f"size={megabytes}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def full_disk(runs: Runs, undisturbed: Path) -> str:
    """A disk that fills up in the middle of a run, and has room again later."""
    messages = set()
    with small_disk(runs.place / "disk", 4) as disk:
        folder = disk / "run"
        ballast = disk / "ballast"
        run = runs.start(folder, *RUN)
        wait_for(lambda: len(whole_steps(folder)) > 1, run)
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        output, errors = run.communicate()
        require(run.returncode == 2, f"exit status {run.returncode}:\n{output}{errors}")
        messages.add(one_line(errors))
        load_run(folder)  # its digests hold
        ballast.unlink()
        status, output = runs.finish(folder, "--resume")
        require(status == 0, output)
        require_identical(folder, undisturbed)
    return f"`{messages.pop()}`; resumed exactly once there was room"


def read_only(runs: Runs, undisturbed: Path) -> str:
    """An output folder that cannot be written."""
    with small_disk(runs.place / "readonly", 4) as disk:
        shutil.copytree(undisturbed, disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        status, output = runs.finish(disk / "new", *RUN)
        require(status == 2, output)
        message = one_line(output)
        status, output = runs.finish(disk / "run", "--resume", "--epochs", str(EPOCHS + 1))
        require(status == 2, output)
        one_line(output)
    return f"`{message}`"


def two_runs(runs: Runs, undisturbed: Path) -> str:
    """A second run on the folder of one that is going on; and after that one is killed."""
    folder = runs.place / "shared"
    first = runs.start(folder, *RUN)
    wait_for(lambda: bool(whole_steps(folder)), first)
    status, output = runs.finish(folder, "--resume")
    require(status == 2, output)
    message = one_line(output)
    require("in use by another run" in message, message)
    first.kill()
    first.communicate()
    status, output = runs.finish(folder, "--resume")
    require(status == 0, output)
    require_identical(folder, undisturbed)
    return f"`{message}`; a kill does not block the resume"


BACKWARDS = """
import itertools, time
ticks = itertools.count(start=2e9, step=-60.0)
time.time = lambda: next(ticks)
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


def clock(runs: Runs, undisturbed: Path) -> str:
    """A clock that goes back by a minute whenever it is looked at."""
    folder = runs.place / "clock"
    run = runs.start(folder, *RUN, script=BACKWARDS)
    wait_for(lambda: len(whole_steps(folder)) > 1, run)
    run.terminate()
    run.communicate()
    require(run.returncode == 143, f"exit status {run.returncode}")
    status, output = runs.finish(folder, "--resume", script=BACKWARDS)
    require(status == 0, output)
    require_identical(folder, undisturbed)
    return "stopped and resumed exactly"


NAN = """
import jax.numpy as jnp
from glow_jax.training import trainer
real = trainer.prepare_images
def prepare(images, seed, draw, *args, **kwargs):
    return jnp.where(draw == 30, jnp.nan, real(images, seed, draw, *args, **kwargs))
trainer.prepare_images = prepare
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


def nan_batch(runs: Runs, undisturbed: Path) -> str:
    """A batch of NaN."""
    folder = runs.place / "nan"
    status, output = runs.finish(folder, *RUN, script=NAN)
    require(status == 0, output)
    leaves, rows = state(folder)
    require(all(np.isfinite(leaf).all() for leaf in leaves), "parameters that are not finite")
    skipped = [row["skipped_updates"] for row in rows]
    require(skipped == [0] + [1] * (EPOCHS - 1), f"skipped updates {skipped}")
    expected = state(undisturbed)[1][-1]["test_bits_per_dim"]
    found = rows[-1]["test_bits_per_dim"]
    require(abs(found - expected) < 0.05, f"{found} bits/dim instead of {expected}")
    without = f"{expected:.3f} without the NaN"
    return f"its update is skipped and counted; test {found:.3f} bits/dim, and {without}"


NEEDS_ROOT = (full_disk, read_only)
FAULTS: dict[str, Callable[[Runs, Path], str]] = {
    "SIGTERM, Ctrl-C": signals,
    "disk full during a save": full_disk,
    "read-only output folder": read_only,
    "two runs on one folder": two_runs,
    "clock going backwards": clock,
    "a batch of NaN": nan_batch,
}


def table(figures: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    rows = ((row["fault"], row["outcome"], f"{row['seconds']:,.0f}") for row in figures["rows"])
    return markdown(["fault", "outcome", "seconds"], rows)


@one_line_errors
def main() -> None:
    """Inject every fault, print what came of it, write."""
    arguments = parse(Arguments)
    failed, rows = False, []
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(Path(name))
        place = arguments.place or runs.place
        kill = partial(kill_at_random, kills=arguments.kills, seed=arguments.seed, place=place)
        undisturbed = runs.place / "undisturbed"
        status, output = runs.finish(undisturbed, *RUN)
        require(status == 0, output)
        for title, inject in {"kill -9 at random moments": kill, **FAULTS}.items():
            started = time.monotonic()
            if inject in NEEDS_ROOT and (sys.platform != "linux" or os.geteuid() != 0):
                outcome = "not tried: takes Linux and root"
            else:
                try:
                    outcome = inject(runs, undisturbed)
                except Failure as failure:
                    outcome, failed = f"FAILED: {failure}", True
            seconds = time.monotonic() - started
            outcome = outcome.replace(str(runs.place), "...")
            print(f"{title}: {outcome} ({seconds:.0f} s)", flush=True)
            rows.append({"fault": title, "outcome": outcome, "seconds": round(seconds)})
            write(arguments.output, rows=rows)
    print(f"\n{table({'rows': rows})}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
