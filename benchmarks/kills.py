"""Runs that are killed at random moments, resumed, and compared once they finish."""

import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from hindered_runs import RUN, Runs, require, require_identical, wait_for

from glow_jax.runs import whole_steps

# Seconds within which a run is killed, after its start or after its first save.
START = 4.0
SAVES = 2.0
# Runs that go on at once.
LANES = 2
# A process that has imported the program, and forks for each run: importing takes longer than most
# runs live. JAX itself starts in the run.
IMPORTED = multiprocessing.get_context("forkserver")
IMPORTED.set_forkserver_preload(["glow_jax.cli.train"])


@dataclass
class Tally:
    """What has happened so far; kept in a file, so that a call that was stopped can go on."""

    killed: int = 0
    during_save: int = 0
    finished: int = 0

    @classmethod
    def read(cls, file: Path) -> "Tally":
        """The tally of an earlier call, or an empty one."""
        return cls(**json.loads(file.read_text())) if file.exists() else cls()

    def write(self, file: Path) -> None:
        """Replace the file."""
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(asdict(self)))
        aside.replace(file)


class ForkedRun:
    """A run of train.py in a process of its own, which has imported it already."""

    def __init__(self, folder: Path, flags: list[str]):
        """Start it; what it prints goes to a file beside the folder."""
        self._printed = folder.with_suffix(".txt")
        arguments = ["train.py", "--output_dir", str(folder), *flags]
        self._process = IMPORTED.Process(target=_train, args=(arguments, self._printed))
        self._process.start()

    def poll(self) -> int | None:
        """The exit status; None while the run goes on."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self._process.join()

    def finish(self) -> tuple[int | None, str]:
        """Wait for its end: the exit status, and all that was printed."""
        self._process.join()
        return self._process.exitcode, self._printed.read_text()


def _train(arguments: list[str], printed: Path) -> None:
    from glow_jax.cli.train import main  # imported already

    with printed.open("w") as file:
        for standard in (1, 2):
            os.dup2(file.fileno(), standard)
    sys.argv = arguments
    main()


def unfinished(folder: Path) -> set[str]:
    """Saves that have begun and whose digests are not written yet."""
    names = folder.joinpath("checkpoints").glob("*")
    return {path.name for path in names if not (path / "sha256.json").exists()}


def begins_to_save(folder: Path, left_over: set[str]) -> bool:
    """Whether a save is going on that is not among those left over."""
    return bool(unfinished(folder) - left_over)


def kill_at_random(runs: Runs, undisturbed: Path, *, kills: int, seed: int, place: Path) -> str:
    """Kill runs with SIGKILL until enough have died, resuming each; compare those that finish.

    Goes on from what an earlier call left in `place`.
    """
    place.mkdir(parents=True, exist_ok=True)
    os.environ |= runs.environment
    shares = [kills // LANES + (lane < kills % LANES) for lane in range(LANES)]
    with ThreadPoolExecutor(LANES) as lanes:
        kill = partial(kill_in_lane, undisturbed, seed=seed, place=place)
        tallies = list(lanes.map(kill, range(LANES), shares))
    killed, during_save, finished = (
        sum(getattr(tally, name) for tally in tallies) for name in asdict(Tally())
    )
    return (
        f"{killed} kills, {during_save} of them during a save; {finished} runs came to their end, "
        "each with the undisturbed run's parameters and metrics"
    )


def kill_in_lane(undisturbed: Path, lane: int, kills: int, *, seed: int, place: Path) -> Tally:
    """One run after another, each killed and resumed; the last one comes to its end, too."""
    file = place / f"kills-{lane}.json"
    tally = Tally.read(file)
    while tally.killed < kills:
        folder = place / f"killed-{lane}-{tally.finished}"
        while True:
            left_over = unfinished(folder)  # by the kill before: no save of this run
            flags = ["--resume"] if (folder / "hparams.json").exists() else RUN
            run = ForkedRun(folder, flags)
            saves = partial(begins_to_save, folder, left_over)
            moments = random.Random(f"{seed} {lane} {tally.killed}")
            if reach_moment(run, moments, saves, tally.killed % 3) and tally.killed < kills:
                kill(run, folder)
                tally.during_save += saves()
                tally.killed += 1
            else:
                finish_after_kills(run, folder, undisturbed)
                tally.finished += 1
                tally.write(file)
                break
            tally.write(file)
    return tally


def reach_moment(
    run: ForkedRun, moments: random.Random, saves: Callable[[], bool], aim: int
) -> bool:
    """Wait for a moment after the start (aim 0), after the first save (1) or during a save (2).

    False where the run ended before.
    """
    if aim > 0 and not wait_for(saves, run):
        return False
    deadline = time.monotonic() + moments.uniform(0, SAVES if aim > 0 else START)
    return wait_for(lambda: time.monotonic() > deadline and (aim < 2 or saves()), run)


def kill(run: ForkedRun, folder: Path) -> None:
    """Kill a run; no whole step may be lost."""
    whole = whole_steps(folder)
    run.kill()
    left = whole_steps(folder)
    lost = bool(whole) and (not left or left[-1] < whole[-1])
    require(not lost, f"{folder.name}: whole steps {whole} before the kill, {left} after")


def finish_after_kills(run: ForkedRun, folder: Path, undisturbed: Path) -> None:
    """Let a run come to its end, and compare it."""
    status, output = run.finish()
    # Killed after its last save, a run has nothing left to do, and says so.
    done = status == 0 or "There is nothing left to train" in output
    require(done, f"{folder.name} ended with {status}:\n{output}")
    require_identical(folder, undisturbed)
