"""`python convert/from_openai.py`: turn a checkpoint of openai/glow into a run folder.

The bridge is imported when the command runs, so that a missing PyTorch gives a one-line error.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from glow_jax.cli.converting import finish, memory_in_bytes
from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.files import check_new_folder

# What the names of their files end in, which the name of a run folder does not.
_ENDINGS = (".index", ".pb", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".ckpt")


@dataclass(frozen=True)
class Arguments:
    """Turn a checkpoint of openai/glow into a run folder."""

    path: Annotated[Path, tyro.conf.Positional]
    """folder of a checkpoint, its .index, a tar archive of it, or the .pb of a frozen graph"""
    output: Path | None = None
    """run folder to write; by default runs/ and the name of what is converted"""
    image_size: int | None = None
    """height and width of the images, if no train.txt tells"""
    n_bits: int | None = None
    """bits kept of each pixel (n_bits_x), if no train.txt tells"""
    y_weight: float | None = None
    """weight of the classification loss in nats (weight_y / log 2), if no train.txt tells"""
    memory_limit: float | None = None
    """gigabytes that the file may take; by default 4 times the published model and optimizer"""
    check: bool = True
    """prove that the result computes the same numbers as an independent model in PyTorch"""


@one_line_errors
def main() -> None:
    """Read the file, describe it, prove the conversion, write the run folder."""
    arguments = parse(Arguments)
    from glow_jax.bridge.from_openai import convert

    output = arguments.output or Path("runs") / _name(arguments.path)
    check_new_folder(output, "run folder")
    memory = memory_in_bytes(arguments.memory_limit)
    conversion = convert(
        arguments.path,
        image_size=arguments.image_size,
        n_bits=arguments.n_bits,
        y_weight=arguments.y_weight,
        memory=memory,
    )
    finish(arguments.path, conversion, output, memory=memory, check=arguments.check)


def _name(path: Path) -> str:
    """The name of a run folder: the last part of the path that does not only say what it is."""
    place = Path(os.path.abspath(path))  # `.` has no name of its own
    name = re.sub(r"\.data-\d{5}-of-\d{5}$", "", place.name)
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return (place.parent.name if name == "model_best_loss" else name) or "openai"
