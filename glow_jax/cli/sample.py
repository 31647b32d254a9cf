"""`python sample.py`: samples of a run as a PNG grid."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.run_flags import RunFlags
from glow_jax.config.checks import brief
from glow_jax.devices import keep_compiled_programs
from glow_jax.errors import GlowError
from glow_jax.evaluation.png import save_png
from glow_jax.evaluation.samples import (
    class_numbers,
    grid,
    labels_in_turn,
    one_label,
    sample_pixels,
)
from glow_jax.runs import LoadedRun

# All of a row are drawn at once.
_MOST_IMAGES = 10_000


@dataclass(frozen=True)
class Arguments(RunFlags):
    """Draw samples from a trained Glow as a PNG grid."""

    temperature: float = 0.7
    """standard deviation of the unit-normal draws"""
    temperatures: str = ""
    """several temperatures, separated by commas: one row each, from the same draws"""
    num: int | None = None
    """number of images; by default 64, or 10 in each row of --temperatures"""
    label: str | None = None
    """class of every image, by name or number, or several separated by commas where images have
    several (conditional models); by default all in turn"""
    seed: int = 0
    """seed of the draws"""
    output: Path | None = None
    """PNG file; by default samples.png in the run folder"""


@one_line_errors
def main() -> None:
    """Load the run, draw, write the grid."""
    arguments = parse(Arguments)
    keep_compiled_programs()
    if not 0 <= arguments.seed < 2**32:
        raise GlowError(f"seed is {brief(arguments.seed)}; it must be from 0 to 4294967295.")
    temperatures = _temperatures(arguments)
    num = arguments.num if arguments.num is not None else (10 if arguments.temperatures else 64)
    if not 1 <= num <= _MOST_IMAGES:
        raise GlowError(f"num is {brief(num)}; it must be from 1 to {_MOST_IMAGES}.")
    run = arguments.load()
    model = run.average_or_model
    y = _labels(run, arguments.label, num)
    key = jax.random.key(arguments.seed)
    rows = [sample_pixels(model, key, num, temperature=t, y=y) for t in temperatures]
    columns = num if arguments.temperatures else None
    path = arguments.output or run.folder / "samples.png"
    try:
        save_png(path, grid(np.concatenate(rows), columns=columns))
    except OSError as error:
        advice = "; give --output another place" if arguments.output is None else ""
        raise GlowError(f"{path} cannot be used: {error.strerror}{advice}.") from error
    print(f"{num * len(rows)} samples of {run.title}, written to {path}")


def _temperatures(arguments: Arguments) -> list[float]:
    try:
        given = [float(part) for part in arguments.temperatures.split(",") if part.strip()]
    except ValueError:
        raise GlowError(
            f"temperatures is {arguments.temperatures!r}; give numbers separated by commas."
        ) from None
    temperatures = given or [arguments.temperature]
    if not all(0 <= temperature < float("inf") for temperature in temperatures):
        raise GlowError(f"A temperature of {temperatures} is below 0 or not a number.")
    return temperatures


def _labels(run: LoadedRun, given: str | None, num: int) -> jax.Array | None:
    model, data = run.average_or_model, run.data
    if given is None:
        return labels_in_turn(model, num, data)
    names = data.class_names if data is not None else ()
    label = one_label(model, class_numbers(given, names, model.config))
    assert label is not None, "class_numbers checks this"
    return jax.numpy.repeat(jax.numpy.asarray(label), num, axis=0)
