"""Turn PyTorch Glow weights into a run folder, and prove that it computes the same numbers.

    python convert/from_torch.py glow.pt --output runs/published

Takes files of y0ast/Glow-PyTorch, chaiyujin/glow-pytorch and rosinality/glow-pytorch.
"""

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import optax
import tyro

from glow_jax.bridge import files, layouts, optimizer
from glow_jax.bridge.mapping import count_parameters, template, to_glow
from glow_jax.bridge.proof import prove
from glow_jax.cli.flags import one_line_errors, parse
from glow_jax.config import Config, ModelConfig, from_json
from glow_jax.errors import GlowError
from glow_jax.model import Glow
from glow_jax.runs.checkpoint import save_weights

# What of Glow-PyTorch's hparams.json is worth keeping beside the architecture.
_KEPT = {
    "data": ("dataset", "augment"),
    "optimizer": ("lr", "warmup", "max_grad_clip", "max_grad_norm"),
    "training": ("batch_size", "eval_batch_size", "epochs", "n_init_batches", "y_weight", "seed"),
}


@dataclass(frozen=True)
class Conversion:
    """A file, read.

    Attributes:
        layout: name of the code whose layout the file is in.
        values: its weights in Glow-PyTorch's layout.
        model: the same as a JAX model.
        config: the run that would have made it.
        optimizer_state: of `make_optimizer(config.optimizer, ...)`, or None.
        step: the number of updates behind it, 0 where no optimizer tells.
        notes: what was changed on the way, a sentence each.
    """

    layout: str
    values: dict[str, np.ndarray]
    model: Glow
    config: Config
    optimizer_state: optax.OptState | None
    step: int
    notes: list[str]


def convert(
    path: str | Path,
    *,
    optimizer: str | Path | None = None,
    image_size: int | None = None,
    flow_permutation: Literal["invconv", "reverse", "shuffle"] | None = None,
    n_bits: int | None = None,
) -> tuple[Glow, Config, optax.OptState | None]:
    """Convert a PyTorch checkpoint.

    Args:
        path: the file; a `hparams.json` beside it is used and checked.
        optimizer: a separate file of the optimizer's state.
        image_size: height and width, where the file does not tell.
        flow_permutation: how channels are mixed, where the file does not tell.
        n_bits: bits kept of each pixel; by default those of the code that wrote the file.

    Returns:
        The model, its configuration, and the state of `make_optimizer(config.optimizer, ...)`, or
        None where there is none. Float64 weights stay float64 where JAX has it enabled.

    Raises:
        GlowError: the file cannot be converted; the message says why.
    """
    given = layouts.Given(image_size, flow_permutation, n_bits)
    conversion = read(Path(path), None if optimizer is None else Path(optimizer), given)
    return conversion.model, conversion.config, conversion.optimizer_state


def read(path: Path, optimizer_path: Path | None, given: layouts.Given) -> Conversion:
    """Read and convert a file; arguments and errors as for `convert`."""
    checkpoint = files.read(path, optimizer_path)
    given = dataclasses.replace(given, hparams=checkpoint.hparams)
    try:
        layout, found = layouts.read(checkpoint.weights, given)
        model = to_glow(found.values, found.config)
        config = _build_config(found.config, checkpoint.hparams or {})
        moments = None
        if checkpoint.optimizer is not None:
            moments = _read_moments(checkpoint.optimizer, layout, found)
    except GlowError as error:
        raise GlowError(f"{path}: {error}") from error
    notes = list(checkpoint.notes)
    is_wide = any(array.dtype == np.float64 for array in checkpoint.weights.values())
    if is_wide and jnp.zeros(()).dtype != jnp.float64:
        notes.append("Its float64 values are rounded to float32.")
    if moments is None:
        return Conversion(layout, found.values, model, config, None, 0, notes)
    settings = dataclasses.replace(config.optimizer, optimizer=moments.kind)
    if moments.lr is not None and "lr" not in (checkpoint.hparams or {}):
        settings = dataclasses.replace(settings, lr=moments.lr)
    config = dataclasses.replace(config, optimizer=settings)
    state = optimizer.to_optax(moments, model, settings)
    notes += moments.notes
    return Conversion(layout, found.values, model, config, state, moments.step, notes)


def _read_moments(
    state_dict: dict[str, Any], layout: str, found: layouts.Found
) -> optimizer.Moments:
    if found.parameters is None:
        raise GlowError(
            f"The optimizer's state of {layout} cannot be carried over: its actnorms train the "
            "scale and not its logarithm, so the moments are of other parameters; convert the "
            "weights alone."
        )
    return optimizer.read(state_dict, found.parameters, template(found.config))


def _build_config(model: ModelConfig, hparams: dict[str, Any]) -> Config:
    """The configuration of a run that has this model and those settings."""
    values = {
        section: {name: hparams[name] for name in names if name in hparams}
        for section, names in _KEPT.items()
    }
    config = from_json(values)
    height, width, _ = model.image_shape
    data = dataclasses.replace(config.data, image_size=height if height == width else 0)
    return dataclasses.replace(config, model=model, data=data)


@dataclass(frozen=True)
class Arguments:
    """Turn PyTorch Glow weights into a run folder."""

    file: Annotated[Path, tyro.conf.Positional]
    """checkpoint of Glow-PyTorch, chaiyujin's or rosinality's glow-pytorch, or a zip of one"""
    output: Path | None = None
    """run folder to write; runs/ and the file's name if left out"""
    optimizer: Path | None = None
    """separate file of the optimizer's state"""
    image_size: int | None = None
    """height and width of the images, where the file does not tell"""
    flow_permutation: Literal["invconv", "reverse", "shuffle"] | None = None
    """how channels are mixed, where the file does not tell"""
    n_bits: int | None = None
    """bits kept of each pixel; 8 if left out, 5 for rosinality's files"""
    check: bool = True
    """prove that the result computes what PyTorch computes"""


@one_line_errors
def main() -> None:
    """Read the file, say what it is, prove the conversion, write the run folder."""
    arguments = parse(Arguments)
    output = arguments.output or Path("runs") / arguments.file.stem
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise GlowError(f"{output} exists and is not an empty folder; give another --output.")
    if any(parent.is_file() for parent in output.parents):
        raise GlowError(f"{output} would lie below a file; give another --output.")
    given = layouts.Given(arguments.image_size, arguments.flow_permutation, arguments.n_bits)
    conversion = read(arguments.file, arguments.optimizer, given)
    print(f"{arguments.file}\n{_describe(conversion)}", flush=True)
    if arguments.check:
        print("largest differences from PyTorch on 4 random images:")
        figures = prove(conversion.model, conversion.values)
        for figure in figures:
            print(f"  {figure}", flush=True)
        if not all(figure.holds for figure in figures):
            raise GlowError(
                f"{arguments.file} is not converted: JAX and PyTorch differ by more than float32 "
                "explains; --no_check converts all the same."
            )
    _write(output, conversion)
    print(
        f"written to {output}: python eval.py {output} --dataset {conversion.config.data.dataset}"
    )


def _describe(conversion: Conversion) -> str:
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
        *(["last convolutions padded with ones"] if model.pad_ones else []),
    ]
    lines = [
        f"layout        {conversion.layout}",
        f"architecture  {'; '.join(parts)}",
        f"images        {height} x {width} x {channels}, {model.n_bits} bits",
        f"parameters    {count_parameters(conversion.model):,}",
    ]
    if conversion.optimizer_state is not None:
        kind = conversion.config.optimizer.optimizer
        lines.append(f"optimizer     {kind}, after {conversion.step} updates")
    return "\n".join([*lines, *(f"note          {note}" for note in conversion.notes)])


def _write(output: Path, conversion: Conversion) -> None:
    """Make the run folder aside and move it into place, so that it is there whole or not at all."""
    aside = output.with_name(f".{output.name}.{os.getpid()}.part")
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_weights(
            aside,
            conversion.config,
            conversion.model,
            optimizer_state=conversion.optimizer_state,
            step=conversion.step,
        )
        aside.replace(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    main()
