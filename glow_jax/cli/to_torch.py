"""`python convert/to_torch.py`: write a run as files that Glow-PyTorch loads.

The bridge is imported when the command runs, so that a missing PyTorch gives a one-line error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.errors import GlowError
from glow_jax.files import write_whole


@dataclass(frozen=True)
class Arguments:
    """Write a run as files that Glow-PyTorch loads."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder"""
    output: Path
    """file of the weights; optimizer.pt and hparams.json are written beside it"""
    step: int | Literal["best"] | None = None
    """checkpoint: a step's number, or best on the validation split; by default the newest"""
    average: bool = False
    """write the averaged parameters of a run with ema_decay, without the optimizer's state"""


@one_line_errors
def main() -> None:
    """Load the run and write the files; existing files are not replaced."""
    arguments = parse(Arguments)
    from glow_jax.bridge.checkpoint_file import HPARAMS
    from glow_jax.bridge.to_torch import export_run

    output = arguments.output
    export = export_run(arguments.run, output, step=arguments.step, average=arguments.average)
    if any(parent.is_file() for parent in output.parents):
        raise GlowError(f"{output} would lie below a file; give another --output.")
    for path, content in export.contents.items():
        if path.exists() and not (path.name == HPARAMS and path.read_bytes() == content):
            raise GlowError(f"{path} exists; move it away or give another --output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    for path, content in export.contents.items():
        write_whole(path, content)
    names = ", ".join(map(str, export.contents))
    print(f"{arguments.run}, step {export.step}, written to {names}")
    print("\n".join(export.notes), end="\n" if export.notes else "")
