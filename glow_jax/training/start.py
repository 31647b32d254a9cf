"""Before the first step: what a run starts from, and whether everything fits together."""

import dataclasses
import re
import secrets
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from glow_jax.config import Config
from glow_jax.data.batching import to_batch
from glow_jax.data.dataset import Dataset, Readable
from glow_jax.devices.compilation import run_once
from glow_jax.devices.parallel import DataParallel, of_main_process, same_in_all_processes
from glow_jax.errors import GlowError
from glow_jax.files import unused
from glow_jax.model import Glow, computing, initialise_actnorm, take_apart
from glow_jax.runs.checkpoint import (
    HPARAMS,
    load_optimizer_state,
    load_run,
    read_config,
    whole_steps,
    write_config,
)
from glow_jax.runs.lock import LOCK
from glow_jax.training.progress import EpochProgress
from glow_jax.training.step import TrainState, new_state

# The draw of the initialisation's noise: no step of training has this number.
_INITIALISATION = 2**32 - 1


@dataclass(frozen=True)
class Start:
    """Where a run begins, or goes on.

    Attributes:
        graph: the model's structure.
        state: everything a step changes.
        epochs: the number of finished epochs.
        progress: how far the epoch after those has come.
    """

    graph: nnx.GraphDef
    state: TrainState
    epochs: int
    progress: EpochProgress


def resolve(config: Config, dataset: Dataset, devices: int) -> Config:
    """The configuration with all that the data set and chance decide filled in.

    Args:
        config: what was asked for.
        dataset: the images.
        devices: how many this process trains on.

    Raises:
        GlowError: the model does not fit the data set, or the processes were asked for different
            things.
    """
    model = config.model
    if config.output.resume or config.training.saved_model:
        saved = config.training.saved_model or config.output.output_dir
        if dataset.image_shape != model.image_shape:
            raise GlowError(
                f"{saved} was made for images of {model.image_shape}; those of {dataset.name} are "
                f"{dataset.image_shape}."
            )
        if model.y_condition and dataset.classes != model.y_classes:
            raise GlowError(
                f"{saved} was made for {model.y_classes} classes; {dataset.name} has "
                f"{dataset.classes}."
            )
    if model.y_condition and not dataset.classes:
        raise GlowError(f"{dataset.name} has no labels: leave out --y_condition.")
    if model.y_condition and dataset.multi_hot != model.multi_class:
        kind, advice = ("multi-hot", "give") if dataset.multi_hot else ("one class", "leave out")
        raise GlowError(
            f"The labels of {dataset.name} are {kind} per image: {advice} --multi_class."
        )
    model = dataclasses.replace(model, image_shape=dataset.image_shape, y_classes=dataset.classes)
    every_time = (config.output.resume, config.output.step, config.output.checkpoint_every)
    flags = (dataclasses.replace(config, output=None), every_time, devices)
    if not same_in_all_processes(zlib.crc32(repr(flags).encode())):
        raise GlowError(
            "The processes of this run were started with different flags, or have different "
            "numbers of devices."
        )
    seed = config.training.seed or of_main_process(secrets.randbelow(10_000) + 1)
    training = dataclasses.replace(config.training, seed=seed)
    return dataclasses.replace(config, model=model, training=training)


def check_sizes(
    config: Config, train_split: Readable, validation: Readable, parallel: DataParallel
) -> None:
    """Raise `GlowError` where the images are too few, or cannot be shared by the devices."""
    training, images = config.training, len(train_split)
    if config.data.validation and not len(validation):
        raise GlowError(
            f"validation {config.data.validation} of the training images is not a single one."
        )
    if training.images_per_update > images:
        raise GlowError(
            f"batch_size * accumulate = {training.batch_size} * {training.accumulate} is larger "
            f"than the {images} training images."
        )
    parallel.check_batch_size(training.batch_size)
    starts_new = not (config.output.resume or training.saved_model)
    if starts_new and training.n_init_batches * training.batch_size > images:
        raise GlowError(
            f"n_init_batches * batch_size = {training.n_init_batches} * {training.batch_size} is "
            f"larger than the {images} training images; give fewer --n_init_batches."
        )


def check_folder(folder: Path, config: Config) -> None:
    """Refuse a folder that holds something already, unless it is to be continued or moved.

    Raises:
        GlowError: it does, or there is nothing to continue.
    """
    if config.output.resume:
        read_config(folder)
    elif _occupied(folder) and not config.output.fresh:
        raise GlowError(
            f"{folder} is not empty: continue that run with --resume, move it aside with --fresh, "
            "or give another --output_dir."
        )


def _occupied(folder: Path) -> bool:
    if not folder.exists():
        return False
    # A kill may leave the lock and half a configuration, which are nothing to lose.
    nothing = re.compile(rf"{re.escape(LOCK)}|\.{re.escape(HPARAMS)}\.\d+\.part")
    return not folder.is_dir() or not all(nothing.fullmatch(path.name) for path in folder.iterdir())


def make_folder(folder: Path, config: Config) -> None:
    """Make an output folder; with `fresh`, move what is there aside, never deleting anything.

    Raises:
        GlowError: it cannot be written.
    """
    try:
        if config.output.fresh and _occupied(folder):
            aside = unused(folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
            folder.rename(aside)
            print(f"moved the old {folder} to {aside}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GlowError(f"{folder} cannot be written: {error.strerror}.") from error


def save_config(folder: Path, config: Config) -> None:
    """Write `hparams.json`, without what holds for one start of the run only."""
    once = {"fresh": False, "resume": False, "step": None}
    once |= {"coordinator": "", "num_processes": 0, "process_id": None}
    output = dataclasses.replace(config.output, **once)
    write_config(folder, dataclasses.replace(config, output=output))


def starting_state(
    config: Config,
    optimizer: optax.GradientTransformation,
    train_split: Readable,
    classes: int,
    prepare: Callable[..., jax.Array],
    updates_per_epoch: int,
) -> Start:
    """The state to go on from: of the run itself, of a saved model, or newly initialised.

    Args:
        config: the run.
        optimizer: its optimizer.
        train_split: what the actnorms of a new model are initialised from.
        classes: the number of classes in the data set.
        prepare: pixels to the model's input, (images, seed, draw, indices) -> x.
        updates_per_epoch: turns a step into an epoch.

    Raises:
        GlowError: what the run goes on from cannot be loaded, or is of another kind.
    """
    training = config.training
    folder = Path(config.output.output_dir)
    # Stopped before its first checkpoint, a run has nothing but its configuration to go on from.
    resumes = config.output.resume and (config.output.step is not None or bool(whole_steps(folder)))
    source = folder if resumes else Path(training.saved_model)
    if not resumes and not training.saved_model:
        model = _initial_model(config, train_split, classes, prepare)
        parts = take_apart(computing(model, memory=training.memory, dtype=training.dtype))
        return Start(parts.graph, new_state(parts, optimizer, config), 0, EpochProgress())

    saved_run = load_run(source, config.output.step)
    # An optimizer's state belongs to the parameters as trained, not to their average.
    as_trained = resumes or training.saved_optimizer
    model = saved_run.model if as_trained else saved_run.best_model
    parts = take_apart(computing(model, memory=training.memory, dtype=training.dtype))
    state = new_state(parts, optimizer, config)
    if resumes:
        average = None if saved_run.average is None else take_apart(saved_run.average).params
        state = state._replace(
            step=jnp.asarray(saved_run.step, jnp.int32),
            average=average,
            skipped=jnp.asarray(saved_run.progress.get("skipped", 0), jnp.int32),
            skipped_in_a_row=jnp.asarray(saved_run.progress.get("skipped_in_a_row", 0), jnp.int32),
            optimizer_state=load_optimizer_state(source, state.optimizer_state, saved_run.step),
        )
        epochs = saved_run.progress.get("epochs", saved_run.step // updates_per_epoch)
        progress = EpochProgress.from_json(saved_run.progress.get("epoch"))
        return Start(parts.graph, state, epochs, progress)
    if training.saved_optimizer:
        saved = Path(training.saved_optimizer)
        saved_kind = read_config(saved).optimizer.optimizer
        if saved_kind != config.optimizer.optimizer:
            raise GlowError(
                f"{saved} holds the state of {saved_kind}; this run is to use "
                f"{config.optimizer.optimizer}: give --optimizer {saved_kind}."
            )
        optimizer_state = load_optimizer_state(saved, state.optimizer_state)
        updates = optax.tree.get_all_with_path(optimizer_state, "count")[0][1]
        state = state._replace(optimizer_state=optimizer_state, step=jnp.asarray(updates))
    return Start(parts.graph, state, int(state.step) // updates_per_epoch, EpochProgress())


def _initial_model(
    config: Config, train_split: Readable, classes: int, prepare: Callable[..., jax.Array]
) -> Glow:
    """A new model, its actnorms initialised from the first batches of training."""
    training = config.training
    seed, count = training.seed, training.n_init_batches * training.batch_size
    order = np.random.default_rng((seed, 0)).permutation(len(train_split))
    batch = to_batch(train_split, order[:count], classes)

    def build(seed: jax.Array) -> Glow:
        model_key, _ = jax.random.split(jax.random.key(seed))
        return Glow(config.model, rngs=nnx.Rngs(model_key))

    model = run_once(build, np.uint32(seed))
    numbers = np.uint32(seed), np.uint32(_INITIALISATION)
    x = run_once(prepare, batch.images, *numbers, batch.indices)
    y = jnp.asarray(batch.labels) if config.model.y_condition else None
    return run_once(initialise_actnorm, model, x, y)
