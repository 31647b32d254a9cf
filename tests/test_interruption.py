"""A run that is stopped by a signal or killed goes on exactly."""

import itertools
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from training_runs import (
    EPOCHS,
    TINY,
    assert_same_run,
    rows_of,
    status_of,
    train,
    two_epochs,
)

from glow_jax.config import OutputConfig
from glow_jax.evaluation import likelihood
from glow_jax.runs import CheckpointWriter, load_run, whole_steps
from glow_jax.training import signals, trainer
from glow_jax.training.signals import Interruptions, Requests


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_epochs(tmp_path_factory)


@pytest.fixture
def before_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """`before_batch(n, action)`: something happens before a run reads its n-th batch."""

    def arrange(number: int, action: Callable[[], object]) -> None:
        real = trainer.training_batches

        def batches(*args, **kwargs):
            for count, batch in enumerate(real(*args, **kwargs), start=1):
                if count == number:
                    action()
                yield batch

        monkeypatch.setattr(trainer, "training_batches", batches)

    return arrange


def kill_self(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "batch", "status"),
    [
        pytest.param(signal.SIGTERM, 8, 143, marks=pytest.mark.slow),
        (signal.SIGINT, 33, 130),
        pytest.param(signal.SIGTERM, 20, 143, marks=pytest.mark.slow),
    ],
    ids=["in the first epoch", "in the second, by Ctrl-C", "at an epoch's last step"],
)
def test_a_signal_stops_saves_and_goes_on_exactly(
    number, batch, status, whole, tmp_path, monkeypatch, capsys, before_batch
) -> None:
    folder = tmp_path / "run"
    before_batch(batch, kill_self(number))
    assert status_of(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder) == status
    monkeypatch.undo()
    step = whole_steps(folder)[-1]
    assert batch <= step <= batch + 1
    said = capsys.readouterr().out
    assert f"after step {step}, which is saved" in said
    assert f"python train.py --output_dir {folder} --resume" in said
    train(monkeypatch, "--output_dir", folder, "--resume")
    assert f"going on after step {step}" in capsys.readouterr().out
    assert_same_run(folder, whole)


@pytest.mark.slow
def test_a_signal_during_evaluation_stops_at_once_and_goes_on_exactly(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    real, calls = likelihood.batches_in_order, itertools.count(1)

    def batches(*args, **kwargs):
        if next(calls) == 3:  # the validation images of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    monkeypatch.setattr(likelihood, "batches_in_order", batches)
    assert status_of(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder) == 143
    monkeypatch.undo()
    assert whole_steps(folder)[-1] == 40
    assert len(rows_of(folder)) == 1
    train(monkeypatch, "--output_dir", folder, "--resume")
    assert_same_run(folder, whole)
    # The score that the stopped run could not know is part of the checkpoint now.
    assert load_run(folder, "best").step == load_run(whole, "best").step


@pytest.mark.slow
def test_checkpoints_every_so_many_steps(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_batch
) -> None:
    folder = tmp_path / "run"
    arguments = [*TINY, *EPOCHS, "--output_dir", folder, "--checkpoint_every", 7]

    class Power(BaseException):
        """Nothing is saved when the power fails."""

    def fail():
        raise Power

    before_batch(31, fail)
    with pytest.raises(Power):
        train(monkeypatch, *arguments)
    monkeypatch.undo()
    assert whole_steps(folder) == [20, 21, 28]  # the best so far, and the newest two
    train(monkeypatch, "--output_dir", folder, "--resume")
    assert_same_run(folder, whole)


@pytest.mark.slow
def test_checkpoints_every_so_many_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = itertools.count()  # a look at the clock a minute
    clock = SimpleNamespace(monotonic=lambda: 60.0 * next(minutes))
    monkeypatch.setattr(signals, "time", clock)
    saved = []
    real = CheckpointWriter.save

    def save(self, step, *args, **kwargs):
        saved.append(step)
        real(self, step, *args, **kwargs)

    monkeypatch.setattr(CheckpointWriter, "save", save)
    folder = tmp_path / "run"
    train(monkeypatch, *TINY, "--epochs", 1, "--output_dir", folder, "--checkpoint_every", "8m")
    assert saved[0] == 0
    assert saved[-1] == 20
    assert 1 <= len(saved[1:-1]) <= 3


@pytest.mark.slow
def test_a_clock_that_goes_backwards_changes_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_batch
) -> None:
    seconds = itertools.count(start=2e9, step=-7.0)
    monkeypatch.setattr(time, "time", lambda: next(seconds))
    folder, real = tmp_path / "run", trainer.training_batches
    before_batch(9, kill_self(signal.SIGTERM))
    arguments = [*TINY, *EPOCHS, "--output_dir", folder, "--checkpoint_every", "5"]
    assert status_of(monkeypatch, *arguments) == 143
    monkeypatch.setattr(trainer, "training_batches", real)
    train(monkeypatch, "--output_dir", folder, "--resume")
    assert_same_run(folder, whole)


def test_resuming_from_an_earlier_step_sets_later_ones_aside(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    train(monkeypatch, "--output_dir", folder, "--resume", "--step", 20)
    assert_same_run(folder, whole)
    assert [path.name for path in (folder / "set_aside").iterdir()] == ["40"]


def test_requests_of_several_processes_are_the_largest_of_each() -> None:
    nothing, due, stop = Requests.of(), Requests.of(checkpoint=True), Requests.of(stop_signal=15)
    assert not nothing.any
    assert due.any
    assert stop.any
    assert nothing.or_of(nothing) == nothing
    assert due.or_of(stop) == stop.or_of(due) == Requests.of(checkpoint=True, stop_signal=15)
    assert due.or_of(nothing) == due
    assert all(leaf.dtype == np.int32 for leaf in due.or_of(stop))


def test_a_process_asks_to_stop_after_a_signal_and_a_second_one_ends_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        interruptions = Interruptions(OutputConfig(checkpoint_every="3"))
        with interruptions.listening():
            assert not interruptions.requests.any
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruptions.requests == Requests.of(stop_signal=signal.SIGTERM)
            assert not seen
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == [signal.SIGTERM]
        assert [step for step in range(1, 8) if interruptions.due_after(step)] == [3, 6]
    finally:
        signal.signal(signal.SIGTERM, before)
