"""`python convert/from_hub.py`: a model folder, or a model of the hub, as a run folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.commands import command
from glow_jax.errors import GlowError
from glow_jax.files import check_new_folder
from glow_jax.hub import PublishedRun, load_run, model_name, save_run


@dataclass(frozen=True)
class Arguments:
    """Turn a model folder, or a model of the Hugging Face Hub, into a run folder."""

    source: Annotated[Path, tyro.conf.Positional]
    """model folder, or user/name on the Hugging Face Hub"""
    output: Path | None = None
    """run folder to write; by default runs/ and the model's name"""


@one_line_errors
def main() -> None:
    """Load the model and write the run folder."""
    arguments = parse(Arguments)
    output = arguments.output or Path("runs") / model_name(arguments.source)
    check_new_folder(output, "run folder")
    run = load_run(arguments.source)
    if not isinstance(run, PublishedRun):
        raise GlowError(f"{arguments.source} is a run folder already: copy it as it is.")
    save_run(run, output)
    print(f"{run.name}, {run.title}, written to {output}: {command('eval')} {output}")
