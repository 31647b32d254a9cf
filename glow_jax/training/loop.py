"""The loop: epochs of steps, and after each an evaluation, samples, a log line, a checkpoint."""

import dataclasses
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from glow_jax.checkpoint import (
    CheckpointWriter,
    load_optimizer_state,
    load_run,
    read_config,
    whole_steps,
    write_config,
)
from glow_jax.config import Config
from glow_jax.data.dataset import Batch, Dataset, Readable, hold_out, to_batch, training_batches
from glow_jax.errors import GlowError
from glow_jax.evaluation.diagnosis import first_nonfinite_layer
from glow_jax.evaluation.likelihood import make_likelihood
from glow_jax.evaluation.plots import save_png
from glow_jax.evaluation.samples import grid, labels_in_turn, sample_pixels
from glow_jax.model import Glow, initialise_actnorm, put_together, take_apart
from glow_jax.parallel import DataParallel, mean_over_devices
from glow_jax.training.logs import Logs
from glow_jax.training.optimizer import learning_rate, make_optimizer
from glow_jax.training.step import Metrics, TrainState, make_train_step, new_state, prepare_images

_SKIPS_THAT_STOP = 10
_SAMPLES = 64
_SAMPLE_TEMPERATURE = 0.7
# The draw of the initialisation's noise: no step of training has this number.
_INITIALISATION = 2**32 - 1


@dataclass(frozen=True)
class _Run:
    """What stays the same from the first step of a run to the last.

    Attributes:
        config: everything chosen.
        folder: where its files go.
        parallel: the devices.
        graph: the model's structure.
        prepare: pixels to the model's input, (images, draw, indices) -> x.
        updates_per_epoch: steps in an epoch.
    """

    config: Config
    folder: Path
    parallel: DataParallel
    graph: nnx.GraphDef
    prepare: Callable[..., jax.Array]
    updates_per_epoch: int


def train(config: Config, dataset: Dataset) -> None:
    """Train a model, leaving everything in `config.output.output_dir`.

    Args:
        config: the run; with `resume`, the folder's own configuration, some of it changed.
        dataset: its images.

    Raises:
        GlowError: something does not fit together, or training no longer gives finite numbers.
    """
    folder = Path(config.output.output_dir)
    check_folder(folder, config)
    parallel = DataParallel(config.output.devices)
    config = _resolve(config, dataset)
    train_split, validation = hold_out(dataset.train, config.data.validation)
    _check_sizes(config, train_split, validation, parallel)
    updates_per_epoch = len(train_split) // config.training.batch_size
    print(
        f"{dataset.name}: {len(train_split)} training, {len(validation)} validation, "
        f"{len(dataset.test)} test images of {' x '.join(map(str, dataset.image_shape))}; "
        f"{parallel}; seed {config.training.seed}",
        flush=True,
    )
    optimizer = make_optimizer(config.optimizer, updates_per_epoch)
    prepare = partial(prepare_images, config=config, flips=dataset.flips, shifts=dataset.shifts)
    graph, state = _starting_state(config, optimizer, train_split, dataset.classes, prepare)
    first_step = int(state.step)
    if first_step >= config.training.epochs * updates_per_epoch:
        raise GlowError(
            f"Step {first_step}, where training would go on, is already beyond "
            f"{config.training.epochs} epochs of {updates_per_epoch} steps; give more --epochs."
        )
    _prepare_folder(folder, config)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(f"{parameters:,} parameters; writing to {folder}", flush=True)

    run = _Run(config, folder, parallel, graph, prepare, updates_per_epoch)
    step = make_train_step(graph, optimizer, config, prepare=prepare, mean=mean_over_devices)
    run_step = parallel.train_step(step)
    evaluate = make_likelihood(
        parallel, graph, config.model, batch_size=config.training.eval_batch_size
    )
    batches = training_batches(
        train_split,
        batch_size=config.training.batch_size,
        classes=dataset.classes,
        seed=config.training.seed,
        first_step=first_step,
    )
    writer = CheckpointWriter(folder, keep_best=len(validation) > 0)
    with Logs(folder, first_step=first_step) as logs, writer as checkpoints:
        if not whole_steps(folder):
            _save(checkpoints, graph, state, None)
        replicated = parallel.replicate(state)
        for epoch in range(first_step // updates_per_epoch, config.training.epochs):
            replicated, trained = _run_epoch(run, run_step, replicated, batches, epoch)
            params = replicated.params if replicated.average is None else replicated.average
            weights = (params, replicated.buffers)
            validated = evaluate(weights, validation).mean if len(validation) else None
            bits = {
                "train": trained.pop("bits_per_dim"),
                "validation": validated,
                "test": evaluate(weights, dataset.test).mean,
            }
            state = parallel.gather(replicated)
            at = int(state.step)
            pixels = _samples(graph, parallel.gather(weights))
            save_png(folder / "samples" / f"epoch_{epoch + 1:04d}.png", pixels)
            logs.picture("samples", pixels, at)
            values = {f"{name}_bits_per_dim": value for name, value in bits.items()}
            skipped = {"skipped_updates": int(state.skipped)}
            logs.scalars(epoch=epoch + 1, step=at, values={**values, **trained, **skipped})
            _save(checkpoints, graph, state, validated)
            shown = (f"{name} {value:.3f}" for name, value in bits.items() if value is not None)
            print(
                f"epoch {epoch + 1}/{config.training.epochs}  {'  '.join(shown)} bits/dim  "
                f"{trained['images_per_second']:.0f} images/s",
                flush=True,
            )


def _run_epoch(
    run: _Run,
    run_step: Callable[..., tuple[TrainState, Metrics]],
    replicated: TrainState,
    batches: Iterator[Batch],
    epoch: int,
) -> tuple[TrainState, dict[str, float | None]]:
    """Run an epoch's remaining steps; return the state, and means over the steps not skipped."""
    config, started = run.config, time.perf_counter()
    first = int(run.parallel.gather(replicated.step))
    count = (epoch + 1) * run.updates_per_epoch - first
    done: list[Metrics] = []
    pending: tuple[Metrics, Batch] | None = None

    def rate() -> float:
        return len(done) * config.training.batch_size / (time.perf_counter() - started)

    def read(metrics: Metrics, batch: Batch) -> None:
        """Look at a step's metrics one step late, so that the device never waits for it."""
        done.append(jax.tree.map(float, run.parallel.gather(metrics)))
        if done[-1].skipped_in_a_row >= _SKIPS_THAT_STOP:
            _stop(run, run.parallel.gather(replicated), batch, first + len(done) - 1)
        recent = _mean(metrics.bits_per_dim for metrics in _finite(done[-50:]))
        shown = "" if recent is None else f"{recent:.3f} bits/dim, "
        bar.set_postfix_str(f"{shown}{rate():.0f} images/s", refresh=False)
        bar.update()

    name = f"epoch {epoch + 1}/{config.training.epochs}"
    with tqdm(total=count, desc=name, unit="step", leave=False) as bar:
        for _ in range(count):
            batch = next(batches)
            replicated, metrics = run_step(replicated, batch.images, batch.labels, batch.indices)
            if pending is not None:
                read(*pending)
            pending = (metrics, batch)
        if pending is not None:
            read(*pending)
    schedule = learning_rate(config.optimizer, run.updates_per_epoch)
    applied = first + count - 1 - int(run.parallel.gather(replicated.skipped))
    return replicated, {
        "bits_per_dim": _mean(metrics.bits_per_dim for metrics in _finite(done)),
        "train_loss": _mean(metrics.loss for metrics in _finite(done)),
        "gradient_norm": _mean(metrics.gradient_norm for metrics in _finite(done)),
        "learning_rate": float(jnp.asarray(schedule(applied))),
        "images_per_second": rate(),
        "seconds": time.perf_counter() - started,
    }


def _finite(metrics: Iterable[Metrics]) -> list[Metrics]:
    return [entry for entry in metrics if not entry.skipped_in_a_row]


def _mean(values: Iterable[Any]) -> float | None:
    """The mean, or None where every update was skipped: NaN is no JSON."""
    gathered = list(values)
    return float(np.mean(gathered)) if gathered else None


def _stop(run: _Run, state: TrainState, batch: Batch, step: int) -> None:
    """Say where the numbers stop being finite."""
    model = put_together(run.graph, state.params, state.buffers)
    x = run.prepare(batch.images, step, batch.indices)
    y = jnp.asarray(batch.labels) if run.config.model.y_condition else None
    layer = first_nonfinite_layer(model, x, y)
    where = (
        f"the first output that is not finite is that of {layer}"
        if layer
        else "every layer's output is finite, the gradient is not"
    )
    raise GlowError(
        f"Training stopped at step {step}: {_SKIPS_THAT_STOP} updates in a row were not finite; "
        f"{where}. The last good checkpoint is step {whole_steps(run.folder)[-1]} of {run.folder}."
    )


def _samples(graph: nnx.GraphDef, weights: tuple[nnx.State, nnx.State]) -> np.ndarray:
    model = put_together(graph, *weights)
    y = labels_in_turn(model, _SAMPLES)
    key = jax.random.key(0)
    return grid(sample_pixels(model, key, _SAMPLES, temperature=_SAMPLE_TEMPERATURE, y=y))


def _save(
    checkpoints: CheckpointWriter,
    graph: nnx.GraphDef,
    state: TrainState,
    validation_bits_per_dim: float | None,
) -> None:
    checkpoints.save(
        int(state.step),
        take_apart(put_together(graph, state.params, state.buffers)),
        average=state.average,
        optimizer_state=state.optimizer_state,
        progress={
            "skipped": int(state.skipped),
            "skipped_in_a_row": int(state.skipped_in_a_row),
        },
        validation_bits_per_dim=validation_bits_per_dim,
    )


def _resolve(config: Config, dataset: Dataset) -> Config:
    """The configuration with all that the data set and chance decide filled in."""
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
    seed = config.training.seed or secrets.randbelow(10_000) + 1
    training = dataclasses.replace(config.training, seed=seed)
    return dataclasses.replace(config, model=model, training=training)


def _check_sizes(
    config: Config, train_split: Readable, validation: Readable, parallel: DataParallel
) -> None:
    training, images = config.training, len(train_split)
    if config.data.validation and not len(validation):
        raise GlowError(
            f"validation {config.data.validation} of the training images is not a single one."
        )
    if training.batch_size > images:
        raise GlowError(
            f"batch_size {training.batch_size} is larger than the {images} training images."
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
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _prepare_folder(folder: Path, config: Config) -> None:
    """Make the run folder ready, never deleting anything, and write `hparams.json` first."""
    try:
        if config.output.fresh and _occupied(folder):
            aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
            while aside.exists():
                aside = aside.with_name(f"{aside.name}.again")
            folder.rename(aside)
            print(f"moved the old {folder} to {aside}", flush=True)
        output = dataclasses.replace(config.output, fresh=False, resume=False)
        write_config(folder, dataclasses.replace(config, output=output))
    except OSError as error:
        raise GlowError(f"{folder} cannot be written: {error.strerror}.") from error


def _starting_state(
    config: Config,
    optimizer: optax.GradientTransformation,
    train_split: Readable,
    classes: int,
    prepare: Callable[..., jax.Array],
) -> tuple[nnx.GraphDef, TrainState]:
    """The state to go on from: of the run itself, of a saved model, or newly initialised."""
    training = config.training
    source = Path(config.output.output_dir if config.output.resume else training.saved_model)
    if not config.output.resume and not training.saved_model:
        model = _initial_model(config, train_split, classes, prepare)
        parts = take_apart(model)
        return parts.graph, new_state(parts, optimizer, config)

    saved_run = load_run(source)
    # An optimizer's state belongs to the parameters as trained, not to their average.
    as_trained = config.output.resume or training.saved_optimizer
    parts = take_apart(saved_run.model if as_trained else saved_run.best_model)
    state = new_state(parts, optimizer, config)
    if config.output.resume:
        average = None if saved_run.average is None else take_apart(saved_run.average).params
        state = state._replace(
            step=jnp.asarray(saved_run.step, jnp.int32),
            average=average,
            skipped=jnp.asarray(saved_run.progress.get("skipped", 0), jnp.int32),
            skipped_in_a_row=jnp.asarray(saved_run.progress.get("skipped_in_a_row", 0), jnp.int32),
            optimizer_state=load_optimizer_state(source, state.optimizer_state),
        )
    elif training.saved_optimizer:
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
    return parts.graph, state


def _initial_model(
    config: Config, train_split: Readable, classes: int, prepare: Callable[..., jax.Array]
) -> Glow:
    """A new model, its actnorms initialised from the first batches of training."""
    seed, count = config.training.seed, config.training.n_init_batches * config.training.batch_size
    order = np.random.default_rng((seed, 0)).permutation(len(train_split))
    batch = to_batch(train_split, order[:count], classes)
    model_key, _ = jax.random.split(jax.random.key(seed))
    model = jax.jit(lambda key: Glow(config.model, rngs=nnx.Rngs(key)))(model_key)
    x = jax.jit(prepare)(batch.images, np.uint32(_INITIALISATION), batch.indices)
    y = jnp.asarray(batch.labels) if config.model.y_condition else None
    return initialise_actnorm(model, x, y)
