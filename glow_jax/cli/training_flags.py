"""The flags of `train.py`, and the defaults that they override."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from glow_jax import hub
from glow_jax.cli.flags import parse
from glow_jax.commands import command
from glow_jax.config import Config
from glow_jax.config.changes import MAY_CHANGE, SECTIONS
from glow_jax.config.command_line import defaults_for
from glow_jax.config.presets import PRESETS
from glow_jax.errors import GlowError
from glow_jax.runs import read_config


def parse_training(arguments: Sequence[str] | None = None) -> Config:
    """The configuration of a training run, from the command line.

    Flags override the values of a preset; with --resume, those of the resumed run; with
    --saved_model, the architecture of the saved model; with --saved_optimizer, its settings. n_bits
    defaults to the data set's usual value.

    Raises:
        GlowError: a value is unknown or out of range, or contradicts the resumed or saved run.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    default = _preset(arguments)
    config = parse(Config, arguments, default=default, title="Train a Glow.")
    for name, value in (("dataset", config.data.dataset), ("output_dir", config.output.output_dir)):
        if not value:
            raise GlowError(f"--{name} is empty: give a value, or leave it out.")
    if config.output.resume:
        saved = read_config(config.output.output_dir)
        if config.preset not in (None, saved.preset):
            raise GlowError(
                f"{config.output.output_dir} was not trained with --preset {config.preset}."
            )
        config = parse(Config, arguments, default=saved)
        _refuse_changes(saved, config, config.output.output_dir)
    elif config.training.saved_model:
        default = _with_saved(default, config)
        config = parse(Config, arguments, default=default)
        _refuse_changes(default, config, config.training.saved_model, sections=("model",))
    else:
        default = defaults_for(config.preset, config.data.dataset)
        config = parse(Config, arguments, default=default)
    return config


def _with_saved(default: Config, config: Config) -> Config:
    """The defaults of a run that starts from a saved model and, if given, an optimizer's state."""
    training = config.training
    folder = Path(training.saved_model)
    if folder.is_file():
        raise GlowError(
            f"--saved_model takes a run folder, but {folder} is a file; "
            f"{command('convert from-torch')} {folder} makes a run folder of a PyTorch checkpoint."
        )
    default = dataclasses.replace(default, model=hub.read_config(folder).model)
    if training.saved_optimizer:
        if hub.is_model_folder(Path(training.saved_optimizer)):
            raise GlowError(
                f"--saved_optimizer is {training.saved_optimizer}, a model folder, which keeps no "
                "optimizer's state: give a run folder, or leave it out."
            )
        optimizer = read_config(training.saved_optimizer).optimizer
        default = dataclasses.replace(default, optimizer=optimizer)
    return default


def _preset(arguments: Sequence[str]) -> Config:
    """The defaults that --preset names; the rest of the command line is parsed later."""
    for position, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag != "--preset":
            continue
        name = value or (arguments[position + 1] if position + 1 < len(arguments) else "")
        if name not in PRESETS:
            raise GlowError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
        return PRESETS[name]
    return Config()


def _refuse_changes(
    before: Config,
    after: Config,
    source: str | Path,
    sections: Sequence[str] = SECTIONS,
) -> None:
    for section in sections:
        old, new = getattr(before, section), getattr(after, section)
        for field in dataclasses.fields(old):
            was, wanted = getattr(old, field.name), getattr(new, field.name)
            if was != wanted and field.name not in MAY_CHANGE.get(section, ()):
                raise GlowError(
                    f"{source} has {field.name} = {was}, which cannot become {wanted}; leave the "
                    "flag out, or start a new run."
                )
