"""Runs of train.py to hinder, and what they must have come to."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from glow_jax.runs import load_run

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 12
RUN = ["--preset", "digits", "--K", "1", "--L", "1", "--hidden_channels", "4", "--seed", "3"]
RUN += ["--epochs", str(EPOCHS), "--checkpoint_every", "4"]


class Failure(Exception):  # noqa: N818 - a finding, not an error of this program
    """A run did not do what it should."""


def require(condition: bool, what: str) -> None:
    """Raise `Failure` unless the condition holds."""
    if not condition:
        raise Failure(what)


class Runs:
    """Starts train.py in a folder for temporary files, with one cache of compiled programs."""

    def __init__(self, place: Path):
        """Use a folder that exists."""
        self.place = place
        self.environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def start(self, folder: Path, *flags: str, script: str = "train.py") -> subprocess.Popen:
        """Start a run, without waiting for it."""
        program = ["-c", script] if "\n" in script else [script]
        return subprocess.Popen(
            [sys.executable, *program, "--output_dir", str(folder), *flags],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(
        self, folder: Path, *flags: str, script: str = "train.py", limit: float | None = None
    ) -> tuple[int, str]:
        """Run to the end: the exit status, and all that was printed.

        Raises:
            Failure: it has not ended after `limit` seconds.
        """
        run = self.start(folder, *flags, script=script)
        try:
            output, errors = run.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            run.kill()
            run.communicate()
            raise Failure(f"{folder.name}: the run did not end in {limit:.0f} s") from None
        return run.returncode, output + errors


def state(folder: Path) -> tuple[list, list]:
    """The arrays of a run's newest checkpoint, and its lines of metrics but for times."""
    run = load_run(folder)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((run.model, run.average))]
    machine = ("seconds", "images_per_second", "peak")
    rows = [
        {name: value for name, value in json.loads(line).items() if not name.startswith(machine)}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    return leaves, rows


def require_identical(folder: Path, undisturbed: Path) -> None:
    """Raise `Failure` unless two runs ended with the same arrays and wrote the same metrics."""
    (one, rows), (other, expected) = state(folder), state(undisturbed)
    same = len(one) == len(other) and all(map(np.array_equal, one, other))
    require(same, f"{folder.name}: the final parameters differ from the undisturbed run's")
    require(rows == expected, f"{folder.name}: the metrics differ from the undisturbed run's")


def one_line(output: str) -> str:
    """The error line of a script's output."""
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    require(len(lines) == 1 and "Traceback" not in output, f"not one line of error:\n{output}")
    return lines[0]


class Process(Protocol):
    """A process that may still run."""

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""


def wait_for(condition: Callable[[], bool], run: Process) -> bool:
    """Wait until the condition holds; False where the run ended before."""
    while run.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False
