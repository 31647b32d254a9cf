"""`glow-jax export`: a run as programs of `jax.export` and as ONNX models."""

import sys
from dataclasses import dataclass
from pathlib import Path

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.run_flags import RunFlags
from glow_jax.devices import keep_compiled_programs
from glow_jax.export import export_programs


@dataclass(frozen=True)
class Arguments(RunFlags):
    """Write a run as programs of jax.export and ONNX models: encode and sample."""

    output: Path | None = None
    """folder to make; by default export in the run folder"""


@one_line_errors
def main() -> None:
    """Load the run, write the files, say what could not be written."""
    arguments = parse(Arguments)
    keep_compiled_programs()
    run = arguments.load()
    export = export_programs(run, arguments.output or run.folder / "export")
    print(f"{run.name}, {run.title}, written to {export.folder}:")
    for name, differences in export.written.items():
        largest = max(differences.values())
        print(f"  {name:<17} within {largest:.1e} of the model's own numbers")
    for name, reason in export.refused.items():
        print(f"warning: {name} is not written: {reason}", file=sys.stderr)
