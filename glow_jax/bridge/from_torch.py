"""PyTorch Glow checkpoints as models, configurations and optimizer states of glow_jax.

Reads files of y0ast/Glow-PyTorch, chaiyujin/glow-pytorch and rosinality/glow-pytorch.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import get_type_hints

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from glow_jax.bridge import layouts
from glow_jax.bridge.checkpoint_file import optimizer_read, read_checkpoint
from glow_jax.bridge.conversion import Conversion
from glow_jax.bridge.layouts import FlowPermutation
from glow_jax.bridge.layouts.hparams import KINDS
from glow_jax.bridge.mapping import fill, layout_shapes, to_glow
from glow_jax.bridge.moments import LARGEST_NUMBER, Moments, read_moments, to_optax
from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, guarded, naming
from glow_jax.bridge.reading.settings import stated
from glow_jax.config import Config, ModelConfig, from_json
from glow_jax.errors import GlowError, shown
from glow_jax.model import Glow

# The settings of Glow-PyTorch's hparams.json, beside the architecture, that a run folder keeps.
_KEPT = {
    "data": ("dataset", "augment"),
    "optimizer": ("lr", "warmup", "max_grad_clip", "max_grad_norm"),
    "training": ("batch_size", "eval_batch_size", "epochs", "n_init_batches", "y_weight", "seed"),
}
_LONGEST_TEXT = 200


def convert(
    path: str | Path,
    *,
    optimizer: str | Path | None = None,
    image_size: int | None = None,
    flow_permutation: FlowPermutation | None = None,
    n_bits: int | None = None,
    weights: str | None = None,
    optimizer_state: bool = True,
    memory: int = DEFAULT_LIMIT,
) -> tuple[Glow, Config, optax.OptState | None]:
    """Convert a PyTorch checkpoint.

    Args:
        path: the file; a `hparams.json` beside it is used and checked.
        optimizer: a separate file of the optimizer's state.
        image_size: height and width in pixels, where the file does not tell.
        flow_permutation: how channels are mixed, where the file does not tell.
        n_bits: bits kept of each pixel; by default those of the program that wrote the file.
        weights: which weights to take, where the file holds several: "model" or "ema", say.
        optimizer_state: whether to convert the optimizer's state, if there is one.
        memory: the number of bytes that the file may take.

    Returns:
        The model, its configuration, and the state of `make_optimizer(config.optimizer, ...)`, or
        None if there is none. Float64 weights stay float64 if JAX has it enabled.

    Raises:
        GlowError: the file cannot be converted; the message says why.
    """
    conversion = convert_file(
        Path(path),
        None if optimizer is None else Path(optimizer),
        layouts.Given(image_size, flow_permutation, n_bits, memory=memory),
        weights,
        optimizer_state=optimizer_state,
    )
    return conversion.model, conversion.config, conversion.optimizer_state


def convert_file(
    path: Path,
    optimizer_path: Path | None,
    given: layouts.Given,
    weights: str | None = None,
    *,
    optimizer_state: bool = True,
) -> Conversion:
    """As `convert`, with all that is known about the file."""
    moments = None
    with guarded(str(path)):
        checkpoint = read_checkpoint(
            path,
            optimizer_path,
            weights=weights,
            optimizer_state=optimizer_state,
            memory=given.memory,
        )
        hparams = checkpoint.hparams or {}
        given = dataclasses.replace(given, hparams=checkpoint.hparams)
        with naming(str(path)):
            layout, found = layouts.read_layout(checkpoint.weights, given)
            config = _build_config(found.config, hparams)
            if checkpoint.optimizer is not None:
                with optimizer_read(optimizer_path):
                    moments = _moments_of(checkpoint.optimizer, layout, found)
    model = to_glow(found.values, found.config)
    notes = list(checkpoint.notes)
    is_wide = any(array.dtype == np.float64 for array in checkpoint.weights.values())
    if is_wide and jnp.zeros(()).dtype != jnp.float64:
        notes.append("Its float64 values are rounded to float32.")
    state, step = None, 0
    if moments is not None:
        step = moments.step
        settings = dataclasses.replace(config.optimizer, optimizer=moments.algorithm)
        if moments.lr is not None and "lr" not in hparams:
            settings = dataclasses.replace(settings, lr=moments.lr)
        config = dataclasses.replace(config, optimizer=settings)
        params = nnx.state(model, nnx.Param)
        mu, nu = (fill(params, values, found.config) for values in (moments.mu, moments.nu))
        state = to_optax(mu, nu, step, model, settings)
        notes += moments.notes
    return Conversion(
        *(layout, found.values, model, config, state, step, notes),
        names_images="dataset" in hparams,
    )


def _moments_of(state_dict: Mapping[str, object], layout: str, found: layouts.Found) -> Moments:
    if found.parameters is None:
        raise GlowError(
            f"The optimizer's state of {layout} cannot be carried over: its actnorms train the "
            "scale and not its logarithm, so the moments are of other parameters."
        )
    return read_moments(state_dict, found.parameters, layout_shapes(found.config))


def _build_config(model: ModelConfig, hparams: Mapping[str, object]) -> Config:
    """The configuration of a run with this model and these settings."""
    values = {
        section: {name: hparams[name] for name in names if name in hparams}
        for section, names in _KEPT.items()
    }
    for section, settings in values.items():
        kinds = get_type_hints(get_type_hints(Config)[section])
        for name, value in settings.items():
            _check_setting(name, value, kinds[name])
    config = from_json(values)
    height, width, _ = model.image_shape
    data = dataclasses.replace(config.data, image_size=height if height == width else 0)
    return dataclasses.replace(config, model=model, data=data)


def _check_setting(name: str, value: object, kind: type) -> None:
    """Refuse a value of hparams.json that no run can have.

    Raises:
        GlowError: a number that no float32 holds, text that no terminal shows, or a value of
            another kind.
    """
    if isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
        wanted = f"a number of at most {LARGEST_NUMBER:.0e}"
    elif isinstance(value, str) and not (value.isprintable() and len(value) <= _LONGEST_TEXT):
        wanted = f"printable text of at most {_LONGEST_TEXT} characters"
    elif isinstance(value, list | dict):
        wanted = "a number, text, true or false"
    elif type(value) is not kind and not (kind is float and type(value) is int):
        raise GlowError(f"{stated(name, value)}; it must be {KINDS[kind]}.")
    else:
        return
    raise GlowError(f"hparams.json says {name} = {shown(value)}; it must be {wanted}.")
