"""Hinder real runs of train.py in every way we know, and see that they go on exactly.

python benchmarks/faults.py --kills 50

Prints a table, and exits with status 1 where a row of it failed. Full and read-only disks are small
file systems in memory, which takes Linux and root; without, those rows say so.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro

from glow_jax.runs import load_run, whole_steps

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 12
# Seconds after its start within which a run is killed.
LONGEST = 20.0
RUN = ["--preset", "digits", "--K", "1", "--L", "1", "--hidden_channels", "4", "--seed", "3"]
RUN += ["--epochs", str(EPOCHS), "--checkpoint_every", "4"]


@dataclass(frozen=True)
class Arguments:
    """Inject faults into runs of train.py."""

    kills: int = 50
    """runs that are killed, a third of them during a save"""
    seed: int = 0
    """seed of the moments"""


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

    def finish(self, folder: Path, *flags: str, script: str = "train.py") -> tuple[int, str]:
        """Run to the end: the exit status, and all that was printed."""
        run = self.start(folder, *flags, script=script)
        output, errors = run.communicate()
        return run.returncode, output + errors


def state(folder: Path) -> tuple[list, list]:
    """The arrays of a run's newest checkpoint, and its lines of metrics but for times."""
    import jax

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


def unfinished(folder: Path) -> set[str]:
    """Saves that have begun and whose digests are not written yet."""
    names = folder.joinpath("checkpoints").glob("*")
    return {path.name for path in names if not (path / "sha256.json").exists()}


def begins_to_save(folder: Path, left_over: set[str]) -> bool:
    """Whether a save is going on that is not among those left over."""
    return bool(unfinished(folder) - left_over)


def wait_for(condition: Callable[[], bool], run: subprocess.Popen) -> bool:
    """Wait until the condition holds; False where the run ended before."""
    while run.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False


def kill_at_random(runs: Runs, undisturbed: Path, arguments: Arguments) -> str:
    """Kill runs with SIGKILL until enough have died, resuming each; compare those that finish."""
    moments = random.Random(arguments.seed)
    killed: int = 0
    during_save: int = 0
    finished: int = 0
    while killed < arguments.kills:
        folder = runs.place / f"killed-{finished}"
        flags = RUN
        while True:
            left_over = unfinished(folder)  # by the kill before: no save of this run
            run = runs.start(folder, *flags)
            aims_at_save = killed % 3 == 2

            saves = partial(begins_to_save, folder, left_over)
            moment = reach_moment(run, moments, saves if aims_at_save else None)
            if moment and killed < arguments.kills:
                kill(run, folder)
                during_save += saves()
                killed += 1
            else:
                finish_after_kills(run, folder, undisturbed)
                finished += 1
                break
            flags = ["--resume"] if (folder / "hparams.json").exists() else RUN
    return (
        f"{killed} kills, {during_save} of them during a save; {finished} runs came to their end, "
        "each with the undisturbed run's parameters and metrics"
    )


def reach_moment(
    run: subprocess.Popen, moments: random.Random, saving: Callable[[], bool] | None
) -> bool:
    """Wait for a random moment, or a save after it; False where the run ended before."""
    deadline = time.monotonic() + moments.uniform(0, LONGEST)
    return wait_for(lambda: time.monotonic() > deadline and (saving is None or saving()), run)


def kill(run: subprocess.Popen, folder: Path) -> None:
    """Kill a run; no whole step may be lost."""
    whole = whole_steps(folder)
    run.kill()
    run.communicate()
    left = whole_steps(folder)
    lost = bool(whole) and (not left or left[-1] < whole[-1])
    require(not lost, f"{folder.name}: whole steps {whole} before the kill, {left} after")


def finish_after_kills(run: subprocess.Popen, folder: Path, undisturbed: Path) -> None:
    """Let a run come to its end, and compare it."""
    output = "".join(run.communicate())
    # Killed after its last save, a run has nothing left to do, and says so.
    done = run.returncode == 0 or "is already beyond" in output
    require(done, f"{folder.name} ended with {run.returncode}:\n{output}")
    require_identical(folder, undisturbed)


def signals(runs: Runs, undisturbed: Path, _: Arguments) -> str:
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


def full_disk(runs: Runs, undisturbed: Path, _: Arguments) -> str:
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
    return f"{messages.pop()!r}; resumed exactly once there was room"


def read_only(runs: Runs, undisturbed: Path, _: Arguments) -> str:
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
    return repr(message)


def two_runs(runs: Runs, undisturbed: Path, _: Arguments) -> str:
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
    return f"{message!r}; a kill does not block the resume"


BACKWARDS = """
import itertools, time
ticks = itertools.count(start=2e9, step=-60.0)
time.time = lambda: next(ticks)
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


def clock(runs: Runs, undisturbed: Path, _: Arguments) -> str:
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
from glow_jax.training import loop
real = loop.prepare_images
def prepare(images, seed, draw, *args, **kwargs):
    return jnp.where(draw == 30, jnp.nan, real(images, seed, draw, *args, **kwargs))
loop.prepare_images = prepare
import runpy
runpy.run_path("train.py", run_name="__main__")
"""


def nan_batch(runs: Runs, undisturbed: Path, _: Arguments) -> str:
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
    return f"its update is skipped and counted; test {found:.3f} bits/dim, else {expected:.3f}"


NEEDS_ROOT = (full_disk, read_only)
FAULTS: dict[str, Callable[[Runs, Path, Arguments], str]] = {
    "kill -9 at random moments": kill_at_random,
    "SIGTERM, Ctrl-C": signals,
    "disk full during a save": full_disk,
    "read-only output folder": read_only,
    "two runs on one folder": two_runs,
    "clock going backwards": clock,
    "a batch of NaN": nan_batch,
}


def main() -> None:
    """Inject every fault, and print what came of it."""
    arguments = tyro.cli(Arguments)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(Path(name))
        undisturbed = runs.place / "undisturbed"
        status, output = runs.finish(undisturbed, *RUN)
        require(status == 0, output)
        print("| fault | outcome | seconds |\n|---|---|---|", flush=True)
        for title, inject in FAULTS.items():
            started = time.monotonic()
            if inject in NEEDS_ROOT and (sys.platform != "linux" or os.geteuid() != 0):
                outcome = "not tried: takes Linux and root"
            else:
                try:
                    outcome = inject(runs, undisturbed, arguments)
                except Failure as failure:
                    outcome, failed = f"FAILED: {failure}", True
            seconds = time.monotonic() - started
            outcome = outcome.replace(str(runs.place), "...")
            print(f"| {title} | {outcome} | {seconds:.0f} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
