"""Training: after each epoch an evaluation, samples, a line of metrics and a checkpoint."""

import contextlib
import shlex
import signal
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from glow_jax.commands import command
from glow_jax.config import Config
from glow_jax.data import Batch, Dataset, Readable
from glow_jax.data.batch_order import Process
from glow_jax.data.batching import training_batches
from glow_jax.data.dataset import hold_out
from glow_jax.devices import (
    Devices,
    is_alone,
    is_main_process,
    losing_processes,
    mean_over_devices,
    of_main_process,
    wait_for_processes,
)
from glow_jax.errors import GlowError, Stopped
from glow_jax.evaluation.diagnosis import first_nonfinite_layer
from glow_jax.evaluation.likelihood import likelihood
from glow_jax.evaluation.same_data import check_same_data, data_of
from glow_jax.evaluation.samples import grid, labels_in_turn, sample_pixels
from glow_jax.model import Glow, computing, parameter_count
from glow_jax.runs import (
    CheckpointWriter,
    check_folder,
    locked,
    locked_beside,
    make_folder,
    read_config,
    set_aside_after,
    whole_steps,
    write_config,
    write_data,
)
from glow_jax.training.initial import Start, start_of
from glow_jax.training.logs import Logs
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.progress import EpochProgress, Progress
from glow_jax.training.report import (
    StepBar,
    epoch_line,
    epoch_values,
    introduction,
    schedule_change,
)
from glow_jax.training.resolve import check_sizes, resolve
from glow_jax.training.signals import Interruptions, Requests
from glow_jax.training.step import (
    Metrics,
    averaged_model,
    make_train_step,
    prepare_images,
)
from glow_jax.training.tracking import check_trackers, open_trackers

_SKIPS_THAT_STOP = 10
_SAMPLES = 64
_SAMPLE_TEMPERATURE = 0.7


def train(config: Config, dataset: Dataset) -> Glow:
    """Train a model; write everything to `config.output.output_dir`.

    Args:
        config: the run; with `resume`, the folder's own configuration with some values changed.
        dataset: its images.

    Returns:
        The trained model, with averaged parameters if the run keeps them.

    Raises:
        GlowError: the configuration, the data set and the folder do not fit together, or training
            no longer gives finite numbers.
        Stopped: a signal came; the state has been saved.
    """
    with losing_processes(), contextlib.ExitStack() as exit_stack:
        return Trainer(config, dataset, exit_stack).fit()


class _Dispatched(NamedTuple):
    """A step that has started and whose result has not been read.

    Attributes:
        step: the number of steps before it.
        batch: its images.
        metrics: what it reports when it is done.
        requests: what the processes requested when it started.
    """

    step: int
    batch: Batch
    metrics: Metrics
    requests: Requests


class _AskedToStop(Exception):  # noqa: N818 - not an error
    """A signal came while images were being evaluated."""


class Trainer:
    """One run, from its first step to its last."""

    def __init__(self, config: Config, dataset: Dataset, exit_stack: contextlib.ExitStack):
        """Resolve the configuration, take the folder, and load or make the initial state.

        Args:
            config: the run as requested.
            dataset: its images.
            exit_stack: closes the folder's lock, the files and the reading processes in the end.

        Raises:
            GlowError: the configuration, the data set and the folder do not fit together.
        """
        self._folder, self._is_main = Path(config.output.output_dir), is_main_process()
        if self._is_main:
            check_trackers(config.output)
            check_folder(self._folder, resume=config.output.resume, fresh=config.output.fresh)
            if self._folder.exists():
                exit_stack.enter_context(locked(self._folder))
        self._devices = Devices(config.output.devices)
        self._config = config = resolve(config, dataset, self._devices.local_count)
        images, self._validation = hold_out(dataset.train, config.data.validation)
        self._test, self._data = dataset.test, data_of(dataset)
        if config.output.resume:
            check_same_data(config, self._data)
        check_sizes(config, images, self._validation, self._devices)
        self._updates_per_epoch = len(images) // config.training.images_per_update
        if self._is_main:
            seed = config.training.seed
            print(introduction(dataset, images, self._validation, self._devices, seed), flush=True)

        optimizer = make_optimizer(
            config.optimizer, self._updates_per_epoch, config.training.epochs
        )
        self._prepare = partial(
            prepare_images, config=config, flips=dataset.flips, shifts=dataset.shifts
        )
        start = start_of(config, optimizer, images, self._prepare, self._updates_per_epoch)
        self._take_folder(start, exit_stack)
        self._checkpoints = exit_stack.enter_context(
            CheckpointWriter(self._folder, keep_best=len(self._validation) > 0)
        )
        self._logs = None
        if self._is_main:
            self._logs = exit_stack.enter_context(
                Logs(self._folder, epochs=start.epochs_done, trackers=open_trackers(config))
            )
        self._interruptions = Interruptions(config.output)
        exit_stack.enter_context(self._interruptions.listening())
        step = make_train_step(optimizer, config, prepare=self._prepare, mean=mean_over_devices)
        self._run_step = self._devices.training_step(step)
        self._batches = training_batches(
            images,
            batch_size=config.training.images_per_update,
            classes=dataset.classes,
            seed=config.training.seed,
            first_step=int(start.state.step),
            process=Process(self._devices.process, self._devices.processes),
        )
        exit_stack.enter_context(contextlib.closing(self._batches))
        self._epochs_done, self._progress = start.epochs_done, start.progress
        self._state = self._devices.replicate(of_main_process(start.state))

    def _take_folder(self, start: Start, exit_stack: contextlib.ExitStack) -> None:
        """Claim the output folder for this run; write `hparams.json` before anything else.

        Raises:
            GlowError: there is nothing left to train, or another run took the folder first.
        """
        output, first_step = self._config.output, int(start.state.step)
        if start.epochs_done >= self._config.training.epochs:
            raise GlowError(
                f"There is nothing left to train: at step {first_step}, {start.epochs_done} epochs "
                f"are done, and --epochs is {self._config.training.epochs}; give more."
            )
        if self._is_main:
            if not output.resume:
                with locked_beside(self._folder):
                    make_folder(self._folder, fresh=output.fresh)
                    exit_stack.enter_context(locked(self._folder))
                    # Again, because another run may have taken it meanwhile.
                    check_folder(self._folder, resume=False, fresh=output.fresh)
                    write_config(self._folder, self._config)
            else:
                self._print_schedule_change(start)
                write_config(self._folder, self._config)
            write_data(self._folder, self._data)
            if output.step is not None:
                set_aside_after(self._folder, first_step)
            count = parameter_count(start.state.model)
            going_on = f"; going on after step {first_step}" if first_step else ""
            print(f"{count:,} parameters; writing to {self._folder}{going_on}", flush=True)
        wait_for_processes("the output folder is ready")

    def _print_schedule_change(self, start: Start) -> None:
        change = schedule_change(
            read_config(self._folder),
            self._config,
            updates=int(start.state.step) - int(start.state.skipped),
            updates_per_epoch=self._updates_per_epoch,
        )
        if change is not None:
            print(change, flush=True)

    def fit(self) -> Glow:
        """Train to the last epoch; return the model."""
        training = self._config.training
        if not whole_steps(self._folder):  # what a first epoch that is cut short can go back to
            self._save()
        while self._epochs_done < training.epochs:
            self._train_epoch()
            model = self._average_or_model()
            values = {
                "train_bits_per_dim": self._progress.mean("bits_per_dim"),
                "validation_bits_per_dim": self._evaluate(model, self._validation),
                "test_bits_per_dim": self._evaluate(model, self._test),
            }
            self._epochs_done += 1
            self._log(model, values)
            self._progress = EpochProgress()
            self._save(values["validation_bits_per_dim"])
        self._checkpoints.wait()
        return self._average_or_model()

    def _train_epoch(self) -> None:
        """Run the remaining steps of an epoch."""
        first, end = self._steps_done, (self._epochs_done + 1) * self._updates_per_epoch
        name = f"epoch {self._epochs_done + 1}/{self._config.training.epochs}"
        dispatched: _Dispatched | None = None
        images = self._config.training.images_per_update
        with StepBar(name, end - first, images=images, shown=self._is_main) as bar:
            for step in range(first + 1, end + 1):
                batch = self._read_batch(dispatched, bar)
                with self._progress.timed("training"):
                    before, dispatched = dispatched, self._dispatch(step - 1, batch)
                    # Read one step late, so that the device never waits for the host.
                    asked = Requests.of() if before is None else self._collect(before, bar)
                    due = self._interruptions.due_after(step) or asked.any
                    if due or step == end:
                        asked = asked.or_of(self._collect(dispatched, bar))
                        dispatched = None
                self._checkpoints.raise_failure()
                if asked.stop_signal:
                    self._save_and_stop(asked)
                if due and step < end:
                    self._save()

    def _read_batch(self, dispatched: _Dispatched | None, bar: "StepBar") -> Batch:
        with self._progress.timed("reading"):
            try:
                return next(self._batches)
            except Exception:
                # Ctrl-C also reaches the reading processes and kills them.
                asked = self._interruptions.requests
                if not asked.stop_signal or not is_alone():
                    raise
                if dispatched is not None:
                    self._collect(dispatched, bar)
                self._save_and_stop(asked)

    def _dispatch(self, step: int, batch: Batch) -> _Dispatched:
        """Start a step."""
        arrays = (batch.images, batch.labels, batch.indices)
        asked = self._interruptions.requests
        self._state, metrics, requests = self._run_step(self._state, asked, *arrays)
        return _Dispatched(step, batch, metrics, requests)

    def _collect(self, dispatched: _Dispatched, bar: "StepBar") -> Requests:
        """Wait for a step and count it; return what the processes requested when it started."""
        metrics = jax.tree.map(float, self._devices.to_host(dispatched.metrics))
        self._progress.add(metrics)
        bar.add(metrics)
        if metrics.skipped_in_a_row >= _SKIPS_THAT_STOP:
            self._give_up(dispatched)
        return self._devices.to_host(dispatched.requests)

    def _evaluate(self, model: Glow, split: Readable) -> float | None:
        """Mean bits/dim of a split; None if it has no images."""
        if not len(split):
            return None
        with self._progress.timed("evaluating"):
            try:
                return likelihood(
                    model,
                    split,
                    self._devices,
                    batch_size=self._config.training.eval_batch_size,
                    progress=self._stop_if_asked,
                ).mean
            except _AskedToStop:
                self._save_and_stop(self._interruptions.requests)

    def _stop_if_asked(self, _: int) -> None:
        # Several processes have to agree on stopping; they do so in the next training step.
        if is_alone() and self._interruptions.requests.stop_signal:
            raise _AskedToStop

    def _log(self, model: Glow, bits_per_dim: dict[str, float | None]) -> None:
        """Draw samples, write the line of metrics, and print a line about the epoch."""
        if self._logs is None:
            return
        step = self._steps_done
        with self._progress.timed("sampling"):
            y = labels_in_turn(model, _SAMPLES, self._data)
            images = sample_pixels(
                model, jax.random.key(0), _SAMPLES, temperature=_SAMPLE_TEMPERATURE, y=y
            )
            self._logs.samples(grid(images), epoch=self._epochs_done, step=step)
        rest = epoch_values(
            self._progress,
            self._config,
            step=step,
            skipped=int(self._devices.to_host(self._state.skipped)),
            updates_per_epoch=self._updates_per_epoch,
        )
        self._logs.scalars(epoch=self._epochs_done, step=step, values={**bits_per_dim, **rest})
        epochs = self._config.training.epochs
        print(epoch_line(self._epochs_done, epochs, bits_per_dim, rest), flush=True)

    def _save(self, validation_bits_per_dim: float | None = None) -> None:
        """Start to save the state and the progress."""
        with self._progress.timed("saving"):
            state = self._devices.first_copy(self._state)
            progress = Progress(
                skipped=int(state.skipped),
                skipped_in_a_row=int(state.skipped_in_a_row),
                epochs=self._epochs_done,
                epoch=self._progress,
            )
            self._checkpoints.save(
                int(state.step),
                state.model,
                average=averaged_model(state),
                optimizer_state=state.optimizer_state,
                progress=progress.to_json(),
                validation_bits_per_dim=validation_bits_per_dim,
            )
            self._interruptions.saved()

    def _save_and_stop(self, asked: Requests) -> NoReturn:
        self._save()
        self._checkpoints.wait()
        again = "" if is_alone() else ", every process with the flags it was started with"
        number = int(asked.stop_signal)
        folder = shlex.quote(str(self._folder))
        raise Stopped(
            f"stopped by {signal.Signals(number).name} after step {self._steps_done}, which is "
            f"saved; go on with\n{command('train')} --output_dir {folder} --resume{again}",
            number,
        )

    def _give_up(self, dispatched: _Dispatched) -> NoReturn:
        """Stop with an error that says where the numbers stop being finite."""
        state = self._devices.first_copy(self._state)
        step, batch = dispatched.step, dispatched.batch
        x = self._prepare(batch.images, state.seed, step, batch.indices)
        y = jnp.asarray(batch.labels) if self._config.model.y_condition else None
        layer = first_nonfinite_layer(state.model, x, y)
        where = (
            f"the first output that is not finite is that of {layer}"
            if layer
            else "every layer's output is finite, the gradient is not"
        )
        raise GlowError(
            f"Training stopped at step {step}: {_SKIPS_THAT_STOP} updates in a row were not "
            f"finite; {where}. The last good checkpoint is step {whole_steps(self._folder)[-1]} of "
            f"{self._folder}."
        )

    @property
    def _steps_done(self) -> int:
        """Steps done."""
        return int(self._devices.to_host(self._state.step))

    def _average_or_model(self) -> Glow:
        """The model to evaluate and sample with, as exactly as after `load`.

        It is the average if the run keeps one.
        """
        model = averaged_model(self._state) or self._state.model
        copy = self._devices.first_copy(model)  # without the optimizer's state
        return computing(copy, precision="highest")
