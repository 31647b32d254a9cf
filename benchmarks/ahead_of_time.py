"""Compile the programs of a run for GPUs and TPUs that are not there, and say what they need.

    pip install -e '.[aot]' 'jax[cuda12]'     (4 GB; either alone compiles its own programs)
    python benchmarks/ahead_of_time.py        (hours: a program for a TPU takes minutes)

Nothing is run. Each program is compiled in a process of its own. What the JSON has is not compiled
again: delete an entry to do so, or the file. Prints a table in Markdown; writes it as JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict

from compiled import collectives, communication, estimated_cycles, kernels
from figures import FOLDER, markdown, write
from programs import (
    Program,
    absent_machine,
    compile_for,
    initialisation,
    likelihood,
    missing,
    sampling,
    training_step,
)

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config.presets import PRESETS
from glow_jax.devices import use_cpu
from glow_jax.errors import GlowError
from glow_jax.flow import GradientMemory
from glow_jax.kernels.products import Precision

MIB = 2**20
Numbers = Precision | Literal["bfloat16"]
NUMBERS: tuple[Numbers, ...] = ("high", "highest", "bfloat16")
# name -> platform, topology
MACHINES: dict[str, tuple[Literal["tpu", "cuda"], str]] = {
    "8 x TPU v5e": ("tpu", "v5e:2x4"),
    "256 x TPU v5e": ("tpu", "v5e:16x16"),
    "1 x TPU v5e": ("tpu", "v5e:2x4"),
    "8 x H100": ("cuda", "1x1x8"),
    "1 x H100": ("cuda", "1x1x8"),
}
TASKS = {
    "training": partial(training_step, over_devices=True),
    "likelihood": likelihood,
    "sampling": sampling,
    "initialisation": initialisation,
}


@dataclass(frozen=True)
class Case:
    """A program and the machine that it is compiled for; `each` is a device's images.

    Only a training step is a program of several devices.
    """

    machine: str
    preset: str
    each: int
    task: str
    memory: GradientMemory = "remat"
    numbers: Numbers = "highest"

    def __str__(self) -> str:
        """The case's name in the JSON."""
        memory = f" {self.memory}" if self.task == "training" else ""
        return (
            f"{self.machine}, {self.preset}, {self.each} each: {self.task}{memory} {self.numbers}"
        )

    def program(self) -> Program:
        """The program."""
        config = PRESETS[self.preset]
        in_bfloat16 = self.numbers == "bfloat16"
        training = replace(
            config.training,
            memory=self.memory,
            dtype="bfloat16" if in_bfloat16 else "float32",
            precision="high" if in_bfloat16 else self.numbers,
        )
        return TASKS[self.task](replace(config, training=training), self.each)


def _cases() -> list[Case]:
    cases = []
    for kind, each in (("H100", 64), ("TPU v5e", 8)):
        alone = partial(Case, f"1 x {kind}", "cifar10")
        cifar10 = partial(Case, f"8 x {kind}", "cifar10", each, "training")
        for numbers in NUMBERS:
            cases += [alone(each, task, numbers=numbers) for task in ("likelihood", "sampling")]
        cases += [cifar10("reversible")]
        for numbers in NUMBERS:
            cases += [cifar10("remat", numbers), cifar10("fast", numbers)]
        for preset in ("cifar10", "celeba256"):
            training = PRESETS[preset].training
            images = training.n_init_batches * training.batch_size
            cases += [Case(f"1 x {kind}", preset, images, "initialisation")]
    cases += [
        Case("8 x H100", "celeba256", 5, "training", "fast", "high"),
        Case("8 x H100", "celeba256", 5, "training", "remat", "high"),
        Case("8 x H100", "celeba256", 5, "training", "reversible"),
        Case("256 x TPU v5e", "cifar10", 8, "training", "remat", "high"),
        Case("8 x TPU v5e", "celeba256", 5, "training", "remat", "high"),
    ]
    return cases


CASES = {str(case): case for case in _cases()}


class Found(TypedDict):
    """What is known of a compiled program; bytes are a device's.

    Attributes:
        seconds: of compiling, by the clock.
        cpu_seconds: of compiling, over all threads.
        temporary: bytes beside arguments and results.
        arguments: bytes; a training step gives its state's back for the new state.
        communication: kind of collective operation -> bytes.
        collectives: the number of such operations.
        cycles: the compiler's estimate; None for a GPU, for which it has none.
        kernels: the operations that launch kernels on a GPU; None for a TPU.
    """

    seconds: float
    cpu_seconds: float
    temporary: int
    arguments: int
    communication: dict[str, int]
    collectives: int
    cycles: int | None
    kernels: int | None


class Unfinished(TypedDict):
    """A program that did not compile within its time, in minutes."""

    unfinished: float


@dataclass(frozen=True)
class Arguments:
    """What is compiled."""

    only: str = ""
    """compile only programs whose names have this in them"""
    minutes: float = 60
    """stop a program that takes longer"""
    output: Path = FOLDER / "ahead_of_time.json"
    texts: Path | None = None
    """existing folder for the compiled programs' texts"""
    here: str = ""
    """compile this one program in this process and print what is found as JSON"""


def compile_here(name: str, texts: Path | None) -> Found:
    """Compile a program in this process."""
    case = CASES[name]
    platform, topology = MACHINES[case.machine]
    absent = absent_machine(platform, topology)
    started, cpu_started = time.perf_counter(), time.process_time()
    compiled = compile_for(absent, case.program())
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None, "this backend does not analyse memory"
    assert text is not None, "this backend has no text"
    if texts:
        (texts / f"{name}.hlo").write_text(text)
    return Found(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        temporary=memory.temp_size_in_bytes,
        arguments=memory.argument_size_in_bytes,
        communication=communication(text),
        collectives=collectives(text),
        cycles=estimated_cycles(text) if platform == "tpu" else None,
        kernels=kernels(text) if platform == "cuda" else None,
    )


def compile_apart(name: str, arguments: Arguments) -> Found | Unfinished:
    """Compile a program in a process of its own."""
    command = [sys.executable, __file__, "--here", name]
    if arguments.texts:
        command += ["--texts", str(arguments.texts)]
    limit = 60 * arguments.minutes
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Unfinished(unfinished=arguments.minutes)
    if done.returncode:
        raise GlowError(f"{name} did not compile: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, found: Found | Unfinished) -> list[str]:
    """A row of the table: its cells."""
    if "unfinished" in found:
        return [name, f"not within {found['unfinished']:.0f} min", *6 * [""]]
    sent = ", ".join(
        f"{found['collectives']} {kind}: {size / 1e6:.1f} MB"
        for kind, size in found["communication"].items()
    )
    cycles = "" if found["cycles"] is None else f"{found['cycles'] / 1e6:.1f}"
    seconds = f"{found['seconds']:.0f}", f"{found['cpu_seconds']:.0f}"
    memory = f"{found['temporary'] / MIB:.0f}", f"{found['arguments'] / MIB:.0f}"
    launching = "" if found["kernels"] is None else f"{found['kernels']:,}"
    return [name, *seconds, *memory, sent, cycles, launching]


def table(results: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    columns = ("program", "compiling, s", "CPU, s", "temporary, MiB", "arguments, MiB")
    rows = [row(name, found) for name, found in results["rows"].items()]
    return markdown([*columns, "sent", "Mcycles", "kernels"], rows)


def read(output: Path) -> dict[str, Found | Unfinished]:
    """What has been compiled before."""
    return json.loads(output.read_text())["rows"] if output.exists() else {}


@one_line_errors
def main() -> None:
    """Compile, print, write after each program."""
    arguments = parse(Arguments)
    use_cpu()
    if arguments.here:
        print(json.dumps(compile_here(arguments.here, arguments.texts)))
        return
    for name, case in CASES.items():
        if arguments.only not in name:
            continue
        lacking = missing(MACHINES[case.machine][0])
        if name not in read(arguments.output) and lacking:
            print(f"{name}: {lacking}", file=sys.stderr)
            continue
        found = read(arguments.output).get(name) or compile_apart(name, arguments)
        rows = {**read(arguments.output), name: found}  # another process may have written meanwhile
        in_order = {each: rows[each] for each in CASES if each in rows}
        write(arguments.output, rows=in_order)
        print(f"{name}: {'not ' if 'unfinished' in found else ''}compiled", flush=True)
    print(f"\n{table({'rows': read(arguments.output)})}")


if __name__ == "__main__":
    main()
