"""Checkpoints of every layout, for the converter."""

import functools
import random
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from glow_jax.bridge.from_torch import Conversion, convert_file
from glow_jax.bridge.layouts import Given
from glow_jax.cli.from_torch import main as from_torch_main

from . import zips
from .case import OUTSIDE, PRECIOUS, Case, check_finite, new_folder, quietly, rng_of
from .commands import run_command
from .damage import damage_bytes, damage_file
from .layouts import LAYOUTS, whole_checkpoint
from .sample import Sample

# Writing a run folder takes four times as long as reading a file, and the proof compiles.
_WRITTEN = 0.06
_PROVED = 0.004


def make(seed: int, folder: Path) -> Case:
    """The case of a seed."""
    _convert_one()
    rng, given = rng_of("checkpoints", seed), new_folder(folder)
    sample = LAYOUTS[rng.choice(list(LAYOUTS))](rng)
    for _ in range(rng.choice([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])):
        _pack(sample, rng)
    for name, content in sample.files.items():
        path = given / name
        path.write_bytes(content)
        if rng.random() < 0.02:
            sample.damage.append(damage_file(path, folder / OUTSIDE / PRECIOUS, rng))
    options = dict(sample.options)
    if "optimizer" in options and options["optimizer"] in sample.files:
        options["optimizer"] = given / str(options["optimizer"])
    elif rng.random() < 0.02:
        options["optimizer"] = given / rng.choice([sample.name, ".", "no", "hparams.json"])
    if rng.random() < 0.05:
        options["weights"] = rng.choice(["model", "ema", "", ".", "a\n", "m0"])
    if rng.random() < 0.1:
        options["optimizer_state"] = False
    path, output = given / sample.name, folder / "converted"
    if rng.random() < _WRITTEN:
        words = words_of(path, output, options, is_proved=rng.random() < _PROVED / _WRITTEN)
        sample.damage.append(" ".join(words[1:]))
        return Case(lambda: run_command(from_torch_main, words), sample.damage, output)
    return Case(lambda: quietly(lambda: _convert(path, options)), sample.damage, output)


@functools.cache
def _convert_one() -> None:
    """Convert a whole file first: PyTorch then imports what makes folders of its own."""
    sample = whole_checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, sample.name)
        path.write_bytes(sample.files[sample.name])
        _convert(path, sample.options)


def _pack(sample: Sample, rng: random.Random) -> None:
    """Put the files into an archive, damaged at times."""
    name, content, how = zips.pack(sample.name, sample.files, rng)
    if rng.random() < 0.2:
        content, more = damage_bytes(content, rng)
        how = f"{how} {more}"
    elif how == "zip" and rng.random() < 0.15:
        content, more = zips.damage_zip(content, rng)
        how = f"{how} {more}"
    sample.damage.append(how)
    sample.name, sample.files = name, {name: content}
    if "optimizer" in sample.options:
        del sample.options["optimizer"]


def words_of(path: Path, output: Path, options: dict[str, object], *, is_proved: bool) -> list[str]:
    """The words of a command that converts a file."""
    words = [str(path), "--output", str(output), *([] if is_proved else ["--no_check"])]
    for name, value in options.items():
        if value is not None:
            words.append(f"--no_{name}" if value is False else f"--{name}={value}")
    return words


def _convert(path: Path, options: dict[str, object]) -> None:
    optimizer = options.get("optimizer")
    weights = options.get("weights")
    given = Given(
        options.get("image_size"),  # pyright: ignore[reportArgumentType]
        options.get("flow_permutation"),  # pyright: ignore[reportArgumentType]
    )
    conversion = convert_file(
        path,
        Path(str(optimizer)) if optimizer else None,
        given,
        None if weights is None else str(weights),
        optimizer_state=bool(options.get("optimizer_state", True)),
    )
    check_conversion(conversion)


def check_conversion(conversion: Conversion) -> None:
    """A conversion is a usable model, and an average and an optimizer's state of its parameters."""
    check_finite("the model", _arrays(nnx.state(conversion.model)))
    if conversion.average is not None:
        check_finite("the average", _arrays(nnx.state(conversion.average)))
    check_finite("the optimizer's state", _arrays(conversion.optimizer_state))
    if not all(note.isprintable() and len(note) < 2000 for note in conversion.notes):
        raise AssertionError("a note is no printable line")


def _arrays(tree: object) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
