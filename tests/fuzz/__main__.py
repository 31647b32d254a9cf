"""`python -m tests.fuzz`: run many cases, and print how they ended.

python -m tests.fuzz --cases 10000                        all kinds
python -m tests.fuzz --kinds checkpoints --first 5000     go on behind the first 5,000
python -m tests.fuzz --kinds checkpoints --case 1234 --keep faults
"""

import argparse
import os
import queue
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from .kinds import KINDS
from .watch import GOOD, Limits, Outcome
from .worker import Worker

Table = dict[str, Counter[str]]


def command_line() -> argparse.ArgumentParser:
    """What reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--cases", type=int, default=10_000, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--case", type=int, help="seed of the only case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the files of cases with faults")
    return parser


def main() -> int:
    """Run the cases of the command line; return the exit status."""
    given = command_line().parse_args()
    first, count = (given.first, given.cases) if given.case is None else (given.case, 1)
    jobs = [(kind, seed) for kind in given.kinds for seed in range(first, first + count)]
    with tempfile.TemporaryDirectory(prefix="glow_fuzz_") as scratch:
        _set_environment(Path(scratch))
        faults, table = run_cases(jobs, Path(scratch), given.keep, given.workers)
    print(_text(table))
    for kind, seed in sorted(faults):
        print(f"python -m tests.fuzz --kinds {kind} --case {seed} --keep faults")
    return 1 if faults else 0


def run_cases(
    jobs: list[tuple[str, int]],
    scratch: Path,
    keep: Path | None,
    workers: int,
    limits: Limits | None = None,
) -> tuple[list[tuple[str, int]], Table]:
    """Run cases in processes of their own; print each fault when it is found.

    Args:
        jobs: kinds and seeds.
        scratch: an empty folder.
        keep: where the files of cases with faults go; None keeps none.
        workers: the number of processes.
        limits: what a case may take.

    Returns:
        The cases with faults, and by kind how often each verdict was given.
    """
    waiting: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    faults: list[tuple[str, int]] = []
    table: Table = {kind: Counter() for kind in dict.fromkeys(kind for kind, _ in jobs)}
    lock = threading.Lock()

    def work(number: int) -> None:
        place = scratch / str(number)
        place.mkdir()
        worker = Worker(place, keep, limits or Limits())
        try:
            while True:
                kind, seed = waiting.get_nowait()
                outcome = worker.run(kind, seed)
                with lock:
                    table[kind][outcome.verdict] += 1
                    done = table[kind].total()
                    if not outcome.is_good:
                        faults.append((kind, seed))
                        _print_fault(kind, seed, outcome)
                    elif done % 1000 == 0:
                        print(f"{kind}: {done} cases, the last of them {seed}", flush=True)
        except queue.Empty:
            pass
        finally:
            worker.stop()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults, table


def _set_environment(scratch: Path) -> None:
    """Keep what the program caches out of the user's own folders."""
    os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(scratch / "compiled")
    os.environ["TMPDIR"] = str(scratch)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"


def _print_fault(kind: str, seed: int, outcome: Outcome) -> None:
    print(f"{kind} {seed}: {outcome.verdict}, after {', '.join(outcome.damage)}")
    message = outcome.message.strip().encode(errors="backslashreplace").decode()
    print(f"{message}\n", flush=True)


def _text(table: Table) -> str:
    """How the cases ended, one line for each kind."""
    verdicts = [*GOOD, *sorted({v for row in table.values() for v in row} - set(GOOD))]
    lines = [f"{'':<14}" + "".join(f"{verdict:>15}" for verdict in verdicts)]
    for kind, row in table.items():
        lines.append(f"{kind:<14}" + "".join(f"{row[verdict]:>15}" for verdict in verdicts))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
