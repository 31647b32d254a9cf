"""`python convert/from_torch.py`: turn a PyTorch Glow checkpoint into a run folder.

The bridge is imported when the command runs, so that a missing PyTorch gives a one-line error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from glow_jax.cli.converting import finish, memory_in_bytes
from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.files import check_new_folder


@dataclass(frozen=True)
class Arguments:
    """Turn a PyTorch Glow checkpoint into a run folder."""

    file: Annotated[Path, tyro.conf.Positional]
    """checkpoint of Glow-PyTorch, chaiyujin's or rosinality's glow-pytorch, or an archive of one"""
    output: Path | None = None
    """run folder to write; by default runs/ and the file's name"""
    optimizer: Path | None = None
    """separate file of the optimizer's state"""
    optimizer_state: bool = True
    """convert the optimizer's state too; --no_optimizer_state takes the weights alone"""
    image_size: int | None = None
    """height and width of the images, if the file does not tell"""
    flow_permutation: Literal["invconv", "reverse", "shuffle"] | None = None
    """how channels are mixed, if the file does not tell"""
    n_bits: int | None = None
    """bits kept of each pixel; by default 8, and 5 for rosinality's files"""
    weights: str | None = None
    """which weights to take, if the file holds several: model or ema, say"""
    memory_limit: float | None = None
    """gigabytes that the file may take; by default 4 times the published model and optimizer"""
    check: bool = True
    """prove that the result computes the same numbers as PyTorch"""


@one_line_errors
def main() -> None:
    """Read the file, describe it, prove the conversion, write the run folder."""
    arguments = parse(Arguments)
    from glow_jax.bridge.from_torch import convert_file
    from glow_jax.bridge.layouts import Given

    output = arguments.output or Path("runs") / arguments.file.stem
    check_new_folder(output, "run folder")
    memory = memory_in_bytes(arguments.memory_limit)
    given = Given(arguments.image_size, arguments.flow_permutation, arguments.n_bits, memory=memory)
    conversion = convert_file(
        arguments.file,
        arguments.optimizer,
        given,
        arguments.weights,
        optimizer_state=arguments.optimizer_state,
    )
    finish(arguments.file, conversion, output, memory=memory, check=arguments.check)
