"""The start of a run: from its own checkpoint, a saved model, or a new model."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from glow_jax import hub
from glow_jax.config import Config
from glow_jax.data import Readable
from glow_jax.data.batch_order import Shuffled
from glow_jax.data.batching import to_batch
from glow_jax.devices import run_once
from glow_jax.errors import GlowError
from glow_jax.model import Glow, computing, initialise_actnorm
from glow_jax.runs import LoadedRun, load_optimizer_state, load_run, read_config, whole_steps
from glow_jax.training.progress import EpochProgress, progress_of
from glow_jax.training.step import Prepare, TrainState, new_state

# The draw of noise for initialisation: no training step has this number.
_INITIALISATION = 2**32 - 1


@dataclass(frozen=True)
class Start:
    """Where a run starts or continues.

    Attributes:
        state: everything a step changes.
        epochs_done: the number of finished epochs.
        progress: what is done of the next epoch.
    """

    state: TrainState
    epochs_done: int
    progress: EpochProgress


def start_of(
    config: Config,
    optimizer: optax.GradientTransformation,
    images: Readable,
    prepare: Prepare,
    updates_per_epoch: int,
) -> Start:
    """Start a run from its own checkpoint, a saved model, or a new model.

    Args:
        config: the run.
        optimizer: as `make_optimizer` returns it.
        images: the training images; they initialise the actnorms of a new model.
        prepare: turns pixels into the model's input.
        updates_per_epoch: converts steps into epochs.

    Raises:
        GlowError: what the run starts from cannot be loaded, or is of another optimizer or model.
    """
    folder, training = Path(config.output.output_dir), config.training
    # A run that stopped before its first checkpoint has only its configuration to continue from.
    if config.output.resume and (config.output.step is not None or whole_steps(folder)):
        return _resumed(load_run(folder, config.output.step), config, optimizer, updates_per_epoch)
    if training.saved_model:
        state = _from_saved(config, optimizer)
    else:
        state = new_state(
            as_trained(_new_model(config, images, prepare), config), optimizer, config
        )
    return Start(state, int(state.step) // updates_per_epoch, EpochProgress())


def as_trained(model: Glow, config: Config) -> Glow:
    """The model, computed as a run trains it."""
    training = config.training
    return computing(
        model, memory=training.memory, dtype=training.dtype, precision=training.network_precision
    )


def _resumed(
    run: LoadedRun,
    config: Config,
    optimizer: optax.GradientTransformation,
    updates_per_epoch: int,
) -> Start:
    progress = progress_of(run.progress)
    state = new_state(as_trained(run.model, config), optimizer, config)
    state = state._replace(
        step=jnp.asarray(run.step, jnp.int32),
        average=None if run.average is None else nnx.state(run.average, nnx.Param),
        skipped=jnp.asarray(progress.skipped, jnp.int32),
        skipped_in_a_row=jnp.asarray(progress.skipped_in_a_row, jnp.int32),
        optimizer_state=load_optimizer_state(run.folder, state.optimizer_state, run.step),
    )
    epochs = run.step // updates_per_epoch if progress.epochs is None else progress.epochs
    return Start(state, epochs, progress.epoch)


def _from_saved(config: Config, optimizer: optax.GradientTransformation) -> TrainState:
    """The state of a new run that starts from a saved model and, if given, an optimizer's state."""
    saved_run = hub.load_run(config.training.saved_model)
    if not config.training.saved_optimizer:
        return new_state(as_trained(saved_run.average_or_model, config), optimizer, config)
    folder = Path(config.training.saved_optimizer)
    kind = read_config(folder).optimizer.optimizer
    if kind != config.optimizer.optimizer:
        raise GlowError(
            f"{folder} holds the state of {kind}; this run uses "
            f"{config.optimizer.optimizer}: give --optimizer {kind}."
        )
    # An optimizer's state belongs to the parameters as trained, not to their average.
    state = new_state(as_trained(saved_run.model, config), optimizer, config)
    optimizer_state = load_optimizer_state(folder, state.optimizer_state)
    updates = optax.tree.get_all_with_path(optimizer_state, "count")[0][1]
    average = state.average
    if average is not None and saved_run.average is not None:
        average = nnx.state(saved_run.average, nnx.Param)
    return state._replace(
        optimizer_state=optimizer_state, step=jnp.asarray(updates), average=average
    )


def _new_model(config: Config, images: Readable, prepare: Prepare) -> Glow:
    """Make a new model; initialise its actnorms from the first batches of training."""
    training = config.training
    seed, count = training.seed, training.n_init_batches * training.batch_size
    classes = config.model.y_classes if config.model.y_condition else 0
    batch = to_batch(images, Shuffled(len(images), count, seed)[0], classes)

    def build(seed: np.uint32) -> Glow:
        # The first of two keys, because a seed must keep giving the same model.
        model_key, _ = jax.random.split(jax.random.key(seed))
        return Glow(config.model, rngs=nnx.Rngs(model_key))

    model = run_once(build, np.uint32(seed))
    draw = np.uint32(_INITIALISATION)
    x = run_once(prepare, batch.images, np.uint32(seed), draw, batch.indices)
    y = jnp.asarray(batch.labels) if config.model.y_condition else None
    return run_once(initialise_actnorm, model, x, y)
