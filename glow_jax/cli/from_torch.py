"""`python convert/from_torch.py`: turn a PyTorch Glow checkpoint into a run folder.

The bridge is imported when the command runs, so that a missing PyTorch gives a one-line error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.errors import GlowError
from glow_jax.model import parameter_count

if TYPE_CHECKING:
    from glow_jax.bridge.from_torch import Conversion


@dataclass(frozen=True)
class Arguments:
    """Turn a PyTorch Glow checkpoint into a run folder."""

    file: Annotated[Path, tyro.conf.Positional]
    """checkpoint of Glow-PyTorch, chaiyujin's or rosinality's glow-pytorch, or an archive of one"""
    output: Path | None = None
    """run folder to write; by default runs/ and the file's name"""
    optimizer: Path | None = None
    """separate file of the optimizer's state"""
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
    from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, GIGABYTE

    output = arguments.output or Path("runs") / arguments.file.stem
    if output.name in ("", ".."):
        raise GlowError(
            f"--output is {str(arguments.output)!r}; it must name the run folder to write, for "
            "example runs/published."
        )
    limit = arguments.memory_limit
    if limit is not None and not 0 < limit < 1e6:
        raise GlowError(f"--memory_limit is {limit}; it must be a number of gigabytes above 0.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise GlowError(f"{output} exists and is not an empty folder; give another --output.")
    if any(parent.is_file() for parent in output.parents):
        raise GlowError(f"{output} would lie below a file; give another --output.")
    memory = DEFAULT_LIMIT if limit is None else int(limit * GIGABYTE)
    given = Given(arguments.image_size, arguments.flow_permutation, arguments.n_bits, memory=memory)
    conversion = convert_file(arguments.file, arguments.optimizer, given, arguments.weights)
    print(f"{arguments.file}\n{_describe(conversion)}", flush=True)
    if arguments.check:
        _check(arguments.file, conversion, memory)
    conversion.save(output)
    print(
        f"written to {output}: python eval.py {output} --dataset {conversion.config.data.dataset}"
    )


def _check(file: Path, conversion: "Conversion", memory: int) -> None:
    """Print the proof of a conversion.

    Raises:
        GlowError: the proof fails.
    """
    from glow_jax.bridge.proof import prove

    print("largest differences from PyTorch on 4 random images:")
    figures = prove(conversion.model, conversion.values, memory)
    for figure in figures:
        print(f"  {figure}", flush=True)
    if not all(figure.holds for figure in figures):
        raise GlowError(
            f"{file} is not converted: JAX and PyTorch differ by more than float32 explains, or by "
            "more than would go unseen; --no_check converts it anyway."
        )


def _describe(conversion: "Conversion") -> str:
    model = conversion.config.model
    height, width, channels = model.image_shape
    mixing = model.flow_permutation
    if mixing == "invconv":
        mixing = "LU-decomposed 1x1 convolutions" if model.LU_decomposed else "1x1 convolutions"
        if model.plain_levels:
            plain = ", ".join(str(level + 1) for level in model.plain_levels)
            mixing += f" (plain in level {plain})"
    parts = [
        f"K = {model.K}, L = {model.L}, {model.hidden_channels} hidden channels",
        f"{model.flow_coupling} couplings, {mixing}",
        f"{'learned' if model.learn_top else 'unit normal'} top prior",
        f"{model.y_classes} classes" if model.y_condition else "unconditional",
        *(["last convolutions padded with ones"] if model.padding == "ones" else []),
    ]
    lines = [
        f"layout        {conversion.layout}",
        f"architecture  {'; '.join(parts)}",
        f"images        {height} x {width} x {channels}, {model.n_bits} bits",
        f"parameters    {parameter_count(conversion.model):,}",
    ]
    if conversion.optimizer_state is not None:
        kind = conversion.config.optimizer.optimizer
        lines.append(f"optimizer     {kind}, after {conversion.step} updates")
    return "\n".join([*lines, *(f"note          {note}" for note in conversion.notes)])
