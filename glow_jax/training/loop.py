"""The loop: epochs of steps, and after each an evaluation, samples, a log line, a checkpoint."""

import contextlib
import shlex
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from glow_jax.config import Config
from glow_jax.data.batch_order import Process
from glow_jax.data.batching import Batch, training_batches
from glow_jax.data.dataset import Dataset, Readable, hold_out
from glow_jax.devices.parallel import (
    DataParallel,
    is_alone,
    is_main_process,
    losing_processes,
    mean_over_devices,
    of_main_process,
    wait_for_processes,
)
from glow_jax.errors import GlowError, Stopped
from glow_jax.evaluation.diagnosis import first_nonfinite_layer
from glow_jax.evaluation.likelihood import make_likelihood
from glow_jax.evaluation.png import save_png
from glow_jax.evaluation.samples import grid, labels_in_turn, sample_pixels
from glow_jax.model import Parts, put_together
from glow_jax.runs.checkpoint import CheckpointWriter, set_aside_after, whole_steps
from glow_jax.runs.lock import locked
from glow_jax.training.logs import Logs
from glow_jax.training.optimizer import learning_rate, make_optimizer
from glow_jax.training.progress import EpochProgress, peak_memory
from glow_jax.training.signals import Interruptions
from glow_jax.training.start import (
    Start,
    check_folder,
    check_sizes,
    make_folder,
    resolve,
    save_config,
    starting_state,
)
from glow_jax.training.step import Metrics, TrainState, make_train_step, prepare_images

_SKIPS_THAT_STOP = 10
_SAMPLES = 64
_SAMPLE_TEMPERATURE = 0.7


@dataclass(frozen=True)
class _Run:
    """What stays the same from the first step of a run to the last.

    Attributes:
        config: everything chosen.
        folder: where its files go.
        parallel: the devices.
        graph: the model's structure.
        prepare: pixels to the model's input, (images, seed, draw, indices) -> x.
        updates_per_epoch: steps in an epoch.
        step: the compiled training step.
        checkpoints: saves the state.
        interruptions: what may happen in the middle of an epoch.
    """

    config: Config
    folder: Path
    parallel: DataParallel
    graph: nnx.GraphDef
    prepare: Callable[..., jax.Array]
    updates_per_epoch: int
    step: Callable[..., Any]
    checkpoints: CheckpointWriter
    interruptions: Interruptions


class _AskedToStop(Exception):  # noqa: N818 - it is no error
    """A signal came while the test images were being evaluated."""


def train(config: Config, dataset: Dataset) -> None:
    """Train a model, leaving everything in `config.output.output_dir`.

    Args:
        config: the run; with `resume`, the folder's own configuration, some of it changed.
        dataset: its images.

    Raises:
        GlowError: something does not fit together, or training no longer gives finite numbers.
        Stopped: a signal came, and the state is saved.
    """
    folder = Path(config.output.output_dir)
    shows = is_main_process()
    with losing_processes(), contextlib.ExitStack() as held:
        if shows:
            check_folder(folder, config)
            if folder.exists():
                held.enter_context(locked(folder))
        parallel = DataParallel(config.output.devices)
        config = resolve(config, dataset, parallel.local_count)
        train_split, validation = hold_out(dataset.train, config.data.validation)
        check_sizes(config, train_split, validation, parallel)
        updates_per_epoch = len(train_split) // config.training.images_per_update
        if shows:
            print(
                f"{dataset.name}: {len(train_split)} training, {len(validation)} validation, "
                f"{len(dataset.test)} test images of {' x '.join(map(str, dataset.image_shape))}; "
                f"{parallel}; seed {config.training.seed}",
                *([parallel.remark] if parallel.remark else []),
                sep="\n",
                flush=True,
            )
        optimizer = make_optimizer(config.optimizer, updates_per_epoch)
        prepare = partial(prepare_images, config=config, flips=dataset.flips, shifts=dataset.shifts)
        start = starting_state(
            config, optimizer, train_split, dataset.classes, prepare, updates_per_epoch
        )
        first_step = int(start.state.step)
        if start.epochs >= config.training.epochs:
            raise GlowError(
                f"Step {first_step}, where training would go on, is already beyond "
                f"{config.training.epochs} epochs of {updates_per_epoch} steps; give more --epochs."
            )
        if shows:
            _take_folder(held, folder, config, first_step)
        wait_for_processes("the output folder is ready")

        keep_best = len(validation) > 0
        checkpoints = held.enter_context(CheckpointWriter(folder, keep_best=keep_best))
        logs = held.enter_context(Logs(folder, epochs=start.epochs)) if shows else None
        interruptions = Interruptions(config.output)
        held.enter_context(interruptions.listening())
        step = make_train_step(
            start.graph, optimizer, config, prepare=prepare, mean=mean_over_devices
        )
        run = _Run(
            config=config,
            folder=folder,
            parallel=parallel,
            graph=start.graph,
            prepare=prepare,
            updates_per_epoch=updates_per_epoch,
            step=parallel.train_step(step),
            checkpoints=checkpoints,
            interruptions=interruptions,
        )
        batches = training_batches(
            train_split,
            batch_size=config.training.images_per_update,
            classes=dataset.classes,
            seed=config.training.seed,
            first_step=first_step,
            process=Process(parallel.process, parallel.processes),
        )
        held.enter_context(contextlib.closing(batches))
        _run_epochs(run, start, batches, validation, dataset.test, logs)


def _take_folder(held: contextlib.ExitStack, folder: Path, config: Config, first_step: int) -> None:
    """Make the output folder this run's own, and write `hparams.json` before anything else."""
    if not config.output.resume:
        make_folder(folder, config)
        held.enter_context(locked(folder))
        check_folder(folder, config)  # another run may have been faster
    save_config(folder, config)
    if config.output.step is not None:
        set_aside_after(folder, first_step)


def _run_epochs(
    run: _Run,
    start: Start,
    batches: Iterator[Batch],
    validation: Readable,
    test: Readable,
    logs: Logs | None,
) -> None:
    config = run.config.training
    evaluate = make_likelihood(
        run.parallel, run.graph, run.config.model, batch_size=config.eval_batch_size
    )
    state, progress = of_main_process(start.state), start.progress
    if is_main_process():
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        at = int(state.step)
        going_on = f"; going on after step {at}" if at else ""
        print(f"{parameters:,} parameters; writing to {run.folder}{going_on}", flush=True)
    replicated = run.parallel.replicate(state)
    del state
    if not whole_steps(run.folder):
        _save(run, replicated, start.epochs, progress)
    for epoch in range(start.epochs, config.epochs):
        replicated = _run_epoch(run, replicated, batches, epoch, progress)
        params = replicated.params if replicated.average is None else replicated.average
        weights = (params, replicated.buffers)
        with progress.timed("evaluating"):
            try:
                validated, tested = (
                    evaluate(weights, split, progress=partial(_stop_if_asked, run)).mean
                    if len(split)
                    else None
                    for split in (validation, test)
                )
            except _AskedToStop:
                stop_signal = int(run.interruptions.wishes[1])
                _save_and_stop(run, replicated, epoch, progress, stop_signal)
        values = {
            "train_bits_per_dim": progress.mean("bits_per_dim"),
            "validation_bits_per_dim": validated,
            "test_bits_per_dim": tested,
        }
        at = int(run.parallel.read(replicated.step))
        if logs is not None:
            with progress.timed("sampling"):
                pixels = _samples(run.graph, run.parallel.gather(weights))
                save_png(run.folder / "samples" / f"epoch_{epoch + 1:04d}.png", pixels)
                logs.picture("samples", pixels, at)
            about = _describe(run, replicated, progress)
            logs.scalars(epoch=epoch + 1, step=at, values=values | about)
            shown = (
                f"{name.split('_')[0]} {value:.3f}"
                for name, value in values.items()
                if value is not None
            )
            print(
                f"epoch {epoch + 1}/{config.epochs}  {'  '.join(shown)} bits/dim  "
                f"{about['images_per_second']:.0f} images/s",
                flush=True,
            )
        progress = EpochProgress()
        _save(run, replicated, epoch + 1, progress, validated)
    run.checkpoints.wait()


def _run_epoch(
    run: _Run,
    replicated: TrainState,
    batches: Iterator[Batch],
    epoch: int,
    progress: EpochProgress,
) -> TrainState:
    """Run an epoch's remaining steps, adding to `progress`; return the state after them."""
    training = run.config.training
    first, before = int(run.parallel.read(replicated.step)), progress.steps
    end = (epoch + 1) * run.updates_per_epoch
    recent: deque[float] = deque(maxlen=50)
    pending: tuple[Metrics, jax.Array, Batch] | None = None
    started = time.perf_counter()

    def read(metrics: Metrics, wishes: jax.Array, batch: Batch) -> np.ndarray:
        """Look at what a step returned one step late, so that the device never waits for it."""
        values = jax.tree.map(float, run.parallel.read(metrics))
        progress.add(values)
        done = progress.steps - before
        if values.skipped_in_a_row >= _SKIPS_THAT_STOP:
            _give_up(run, replicated, batch, first + done - 1)
        if not values.skipped_in_a_row:
            recent.append(values.bits_per_dim)
        shown = f"{np.mean(recent):.3f} bits/dim, " if recent else ""
        rate = done * training.images_per_update / (time.perf_counter() - started)
        bar.set_postfix_str(f"{shown}{rate:.0f} images/s", refresh=False)
        bar.update()
        return run.parallel.read(wishes)

    name = f"epoch {epoch + 1}/{training.epochs}"
    hidden = not is_main_process()
    with tqdm(total=end - first, desc=name, unit="step", leave=False, disable=hidden) as bar:
        for step in range(first + 1, end + 1):
            wished = np.zeros(2, np.int32)
            with progress.timed("reading"):
                try:
                    batch = next(batches)
                except Exception:
                    # Ctrl-C goes to the processes that read as well, and they die of it.
                    stop_signal = int(run.interruptions.wishes[1])
                    if not stop_signal or not is_alone():
                        raise
                    if pending is not None:
                        read(*pending)
                    _save_and_stop(run, replicated, epoch, progress, stop_signal)
            with progress.timed("training"):
                share = (batch.images, batch.labels, batch.indices)
                wishes = run.interruptions.wishes
                replicated, metrics, wishes = run.step(replicated, wishes, *share)
                if pending is not None:
                    wished = read(*pending)
                pending = (metrics, wishes, batch)
                due = run.interruptions.due_after(step) or wished.any()
                if due or step == end:
                    wished = np.maximum(wished, read(*pending))
                    pending = None
            run.checkpoints.raise_failure()
            stop_signal = int(wished[1])
            if stop_signal:
                _save_and_stop(run, replicated, epoch, progress, stop_signal)
            if due and step < end:
                _save(run, replicated, epoch, progress)
    return replicated


def _describe(run: _Run, replicated: TrainState, progress: EpochProgress) -> dict[str, Any]:
    """How an epoch went, apart from its bits/dim."""
    step, skipped = (int(run.parallel.read(n)) for n in (replicated.step, replicated.skipped))
    schedule = learning_rate(run.config.optimizer, run.updates_per_epoch)
    images = progress.steps * run.config.training.images_per_update
    seconds = {phase: round(value, 3) for phase, value in progress.seconds.items()}
    return {
        "train_loss": progress.mean("loss"),
        "gradient_norm": progress.mean("gradient_norm"),
        "learning_rate": float(jnp.asarray(schedule(step - 1 - skipped))),
        "skipped_updates": skipped,
        "images_per_second": images / (seconds["reading"] + seconds["training"]),
        **{f"seconds_{phase}": value for phase, value in seconds.items()},
        **peak_memory(),
    }


def _stop_if_asked(run: _Run, _: int) -> None:
    # Several processes would have to agree, which they do at the next training step.
    if is_alone() and run.interruptions.wishes[1]:
        raise _AskedToStop


def _save_and_stop(
    run: _Run, replicated: TrainState, epochs: int, progress: EpochProgress, stop_signal: int
) -> NoReturn:
    _save(run, replicated, epochs, progress)
    run.checkpoints.wait()
    again = "" if is_alone() else ", every process with the flags it was started with"
    raise Stopped(
        f"stopped by {signal.Signals(stop_signal).name} after step "
        f"{int(run.parallel.read(replicated.step))}, which is saved; go on with\n"
        f"python train.py --output_dir {shlex.quote(str(run.folder))} --resume{again}",
        stop_signal,
    )


def _give_up(run: _Run, replicated: TrainState, batch: Batch, step: int) -> NoReturn:
    """Say where the numbers stop being finite."""
    state = run.parallel.gather(replicated)
    model = put_together(run.graph, state.params, state.buffers)
    x = run.prepare(batch.images, state.seed, step, batch.indices)
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
    run: _Run,
    replicated: TrainState,
    epochs: int,
    progress: EpochProgress,
    validation_bits_per_dim: float | None = None,
) -> None:
    """Start to save the state: after `epochs` whole ones, and so much of the next."""
    with progress.timed("saving"):
        state = run.parallel.gather(replicated)
        run.checkpoints.save(
            int(state.step),
            Parts(run.graph, state.params, state.buffers),
            average=state.average,
            optimizer_state=state.optimizer_state,
            progress={
                "skipped": int(state.skipped),
                "skipped_in_a_row": int(state.skipped_in_a_row),
                "epochs": epochs,
                "epoch": progress.to_json(),
            },
            validation_bits_per_dim=validation_bits_per_dim,
        )
        run.interruptions.saved()
