"""One command for a GPU: right, fast, how much memory, and does a run resume there?

    python benchmarks/accelerator.py                   (ten minutes; needs no network)
    python benchmarks/accelerator.py --parts speed --batch_sizes 64 256
    python benchmarks/accelerator.py --cpu --model tiny --batch_size 2 --batch_sizes 2 --steps 3

Parity with the PyTorch reference on the same GPU; memory and compile times; bits/dim of 300 steps
at each precision; a run that is killed and resumed; and the speed of training, likelihood and
sampling beside the reference, the same layer by layer, and compiled by `torch.compile`. Every part
has a time limit, and what it could not measure is said; the last has all the time that is left.
The tables are written as Markdown and JSON after each row.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from accelerator_parts import PARTS, Entry, LeftOut, Task, limited
from architectures import ModelName
from hindered_runs import Failure
from speed_rounds import last_line
from workers import Worker

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.devices import use_cpu
from glow_jax.errors import GlowError
from glow_jax.files import write_json, write_whole

Part = Literal["parity", "memory", "training", "resume", "speed"]


@dataclass(frozen=True)
class Arguments:
    """What is measured."""

    parts: tuple[Part, ...] = ("parity", "memory", "training", "resume", "speed")
    model: ModelName = "published"
    batch_size: int = 64
    """of memory and training"""
    batch_sizes: tuple[int, ...] = (64, 512, 16, 256, 128, 32)
    """of speed, the most important first"""
    steps: int = 300
    """of each training"""
    rounds: int = 3
    minutes: float = 10.0
    cpu: bool = False
    """compute on the CPU, to try the command"""
    output: Path = Path("docs/benchmarks/accelerator")
    """where the tables go, without their endings"""


class Report:
    """What was found so far, in files that are written anew with every row."""

    def __init__(self, arguments: Arguments, machine: str):
        """Begin; the folder of the output must be there."""
        self.path = arguments.output
        about = {name: value for name, value in asdict(arguments).items() if name != "output"}
        self.results: dict[str, object] = {"machine": machine, "arguments": about}
        self.parts: dict[str, dict[str, list]] = {}
        self.results["parts"] = self.parts
        self._text = [f"# {machine}\n"]

    def run(self, name: str, task: Task, seconds: float) -> bool:
        """Run a part and keep what it finds; False if it failed."""
        rows, notes, table = [], [], []
        self.parts[name] = {"rows": rows, "notes": notes}
        before, failed, started = list(self._text), False, time.monotonic()

        def keep() -> None:
            self._text = [*before, f"## {name}\n", *_table(table), *(f"- {n}" for n in notes), ""]
            write_json(self.path.with_suffix(".json"), self.results)
            write_whole(self.path.with_suffix(".md"), "\n".join(self._text))

        try:
            for found in PARTS[name][0](limited(task, seconds, task.until)):
                if isinstance(found, Entry):
                    rows.append(found.record)
                    table.append(found.cells)
                elif found not in notes:
                    notes.append(found)
                keep()
        except LeftOut as why:
            notes.append(f"Left out: {why}")
        except (GlowError, Failure, OSError) as error:
            failed = True
            notes.append(f"Failed: {last_line(error)}")
        keep()
        print("\n".join(self._text[len(before) :]), flush=True)
        print(f"({name}: {time.monotonic() - started:.0f} s)\n", flush=True)
        return not failed


def _table(rows: Sequence[dict[str, str]]) -> list[str]:
    if not rows:
        return []
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*lines, *(f"| {' | '.join(row.values())} |" for row in rows), ""]


def set_environment(arguments: Arguments, cache: str) -> None:
    """Let every process that starts see one device, and keep what it compiles only until the end.

    This process itself computes on the CPU: the device's memory is the others'.
    """
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    if arguments.cpu:
        os.environ |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    else:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    use_cpu()


@one_line_errors
def main() -> None:
    """Measure part by part, print, write."""
    arguments = parse(Arguments)
    end = time.monotonic() + 60 * arguments.minutes
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        set_environment(arguments, cache)
        try:
            with Worker("machine") as here:
                machine, platform = here.ask("machine"), here.ask("platform")
                card = "cpu" if platform == "cpu" else here.ask("card")
                without_reference = here.ask("without_reference")
        except GlowError as error:
            raise GlowError(f"JAX cannot compute here: {last_line(error)}") from error
        if platform == "cpu" and not arguments.cpu:
            raise GlowError(
                "JAX finds no GPU here: install JAX for it (pip install 'jax[cuda12]'), or try the "
                "command on the CPU by --cpu."
            )
        report = Report(arguments, machine)
        about = (arguments.model, arguments.batch_size, arguments.batch_sizes)
        counts = (arguments.steps, arguments.rounds)
        task = Task(*about, *counts, card, without_reference, end)
        share = arguments.minutes / 10
        held = [report.run(part, task, share * PARTS[part][1]) for part in arguments.parts]
    if not all(held):
        sys.exit(1)


if __name__ == "__main__":
    main()
