"""`glow-jax export`: a run as programs of `jax.export` and as ONNX models."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.devices import keep_compiled_programs
from glow_jax.export import export_programs
from glow_jax.hub import load_run


@dataclass(frozen=True)
class Arguments:
    """Write a run as programs of jax.export and ONNX models: encode and sample."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder, model folder, or user/name on the Hugging Face Hub"""
    output: Path | None = None
    """folder to make; by default export in the run folder"""
    step: int | Literal["best"] | None = None
    """checkpoint: a step's number, or best on the validation split; by default the newest"""
    average: bool = True
    """take the averaged parameters if the run keeps them; --no_average takes those in training"""


@one_line_errors
def main() -> None:
    """Load the run, write the files, say what could not be written."""
    arguments = parse(Arguments)
    keep_compiled_programs()
    run = load_run(arguments.run, arguments.step, average=arguments.average)
    export = export_programs(run, arguments.output or run.folder / "export")
    print(f"{run.name}, {run.title}, written to {export.folder}:")
    for name, differences in export.written.items():
        largest = max(differences.values())
        print(f"  {name:<17} within {largest:.1e} of the model's own numbers")
    for name, reason in export.refused.items():
        print(f"warning: {name} is not written: {reason}", file=sys.stderr)
