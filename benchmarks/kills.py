"""Runs that are killed at random moments, resumed, and compared once they finish."""

import random
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hindered_runs import RUN, Runs, require, require_identical, wait_for

from glow_jax.runs import whole_steps

# Seconds after its start within which a run is killed.
LONGEST = 20.0


def unfinished(folder: Path) -> set[str]:
    """Saves that have begun and whose digests are not written yet."""
    names = folder.joinpath("checkpoints").glob("*")
    return {path.name for path in names if not (path / "sha256.json").exists()}


def begins_to_save(folder: Path, left_over: set[str]) -> bool:
    """Whether a save is going on that is not among those left over."""
    return bool(unfinished(folder) - left_over)


def kill_at_random(runs: Runs, undisturbed: Path, *, kills: int, seed: int) -> str:
    """Kill runs with SIGKILL until enough have died, resuming each; compare those that finish."""
    moments = random.Random(seed)
    killed: int = 0
    during_save: int = 0
    finished: int = 0
    while killed < kills:
        folder = runs.place / f"killed-{finished}"
        flags = RUN
        while True:
            left_over = unfinished(folder)  # by the kill before: no save of this run
            run = runs.start(folder, *flags)
            aims_at_save = killed % 3 == 2

            saves = partial(begins_to_save, folder, left_over)
            moment = reach_moment(run, moments, saves if aims_at_save else None)
            if moment and killed < kills:
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
