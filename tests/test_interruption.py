"""A run that is stopped, killed or hindered goes on exactly, or says in one sentence why not."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

import train as train_script
from glow_jax.evaluation import likelihood
from glow_jax.model import take_apart
from glow_jax.runs import CheckpointWriter, load_optimizer_state, load_run, whole_steps
from glow_jax.runs.lock import locked
from glow_jax.training import logs, loop, signals
from glow_jax.training.optimizer import make_optimizer

pytestmark = pytest.mark.usefixtures("quick_compilation")

# 20 steps an epoch; a step's batch is its number in `batches`.
TINY = ["--preset", "digits", "--K", "1", "--L", "1", "--hidden_channels", "4", "--seed", "3"]
EPOCHS = ["--epochs", "2"]


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    train_script.main()


def status_of(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    with pytest.raises(SystemExit) as exit_info:
        run_script(monkeypatch, *arguments)
    return exit_info.value.code


def rows_of(folder: Path) -> list[dict]:
    """The lines of metrics, without what the machine decides."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    machine = ("seconds", "images_per_second", "peak")
    return [
        {name: value for name, value in json.loads(line).items() if not name.startswith(machine)}
        for line in lines
    ]


def state_of(folder: Path) -> tuple:
    run = load_run(folder)
    optimizer = make_optimizer(run.config.optimizer, 1)
    target = jax.eval_shape(optimizer.init, take_apart(run.model).params)
    return run.model, run.average, load_optimizer_state(folder, target)


def assert_identical(one: Path, other: Path) -> None:
    assert rows_of(one) == rows_of(other)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state_of(one), state_of(other))
    assert jax.tree.all(same)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that nothing hinders."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_script(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder)
    return folder


@pytest.fixture
def before_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """`before_batch(n, action)`: something happens before a run reads its n-th batch."""

    def arrange(number: int, action: Callable[[], object]) -> None:
        real = loop.training_batches

        def batches(*args, **kwargs):
            for count, batch in enumerate(real(*args, **kwargs), start=1):
                if count == number:
                    action()
                yield batch

        monkeypatch.setattr(loop, "training_batches", batches)

    return arrange


def kill_self(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "batch", "status"),
    [(signal.SIGTERM, 8, 143), (signal.SIGINT, 33, 130), (signal.SIGTERM, 20, 143)],
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
    run_script(monkeypatch, "--output_dir", folder, "--resume")
    assert f"going on after step {step}" in capsys.readouterr().out
    assert_identical(folder, whole)


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
    run_script(monkeypatch, "--output_dir", folder, "--resume")
    assert_identical(folder, whole)
    # The score that the stopped run could not know is part of the checkpoint now.
    assert load_run(folder, "best").step == load_run(whole, "best").step


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
        run_script(monkeypatch, *arguments)
    monkeypatch.undo()
    assert whole_steps(folder) == [20, 21, 28]  # the best so far, and the newest two
    run_script(monkeypatch, "--output_dir", folder, "--resume")
    assert_identical(folder, whole)


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
    run_script(
        monkeypatch, *TINY, "--epochs", 1, "--output_dir", folder, "--checkpoint_every", "8m"
    )
    assert saved[0] == 0
    assert saved[-1] == 20
    assert 1 <= len(saved[1:-1]) <= 3


def test_a_clock_that_goes_backwards_changes_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_batch
) -> None:
    seconds = itertools.count(start=2e9, step=-7.0)
    monkeypatch.setattr(time, "time", lambda: next(seconds))
    folder, real = tmp_path / "run", loop.training_batches
    before_batch(9, kill_self(signal.SIGTERM))
    arguments = [*TINY, *EPOCHS, "--output_dir", folder, "--checkpoint_every", "5"]
    assert status_of(monkeypatch, *arguments) == 143
    monkeypatch.setattr(loop, "training_batches", real)
    run_script(monkeypatch, "--output_dir", folder, "--resume")
    assert_identical(folder, whole)


def test_a_batch_that_is_not_finite_is_skipped_and_counted(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.prepare_images

    def prepare(images, seed, draw, *args, **kwargs):
        return jnp.where(draw == 6, jnp.nan, real(images, seed, draw, *args, **kwargs))

    monkeypatch.setattr(loop, "prepare_images", prepare)
    folder = tmp_path / "run"
    run_script(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder)
    rows = rows_of(folder)
    assert [row["skipped_updates"] for row in rows] == [1, 1]
    assert rows[-1]["test_bits_per_dim"] == pytest.approx(
        rows_of(whole)[-1]["test_bits_per_dim"], abs=0.05
    )
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state_of(folder)))


@pytest.mark.parametrize("phase", ["start", "background"])
def test_a_disk_that_is_full_stops_the_run_and_leaves_earlier_steps_whole(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = tmp_path / "run"
    full = OSError(errno.ENOSPC, "No space left on device")
    calls = itertools.count(1)

    def failing(real):
        def function(*args, **kwargs):
            if next(calls) == 2:
                # Tensorstore wraps what the system says.
                raise full if phase == "background" else ValueError(f"RESOURCE_EXHAUSTED: {full}")
            return real(*args, **kwargs)

        return function

    if phase == "start":
        monkeypatch.setattr(ocp.CheckpointManager, "save", failing(ocp.CheckpointManager.save))
    else:
        write_digests = failing(CheckpointWriter._write_digests)
        monkeypatch.setattr(CheckpointWriter, "_write_digests", write_digests)
    assert status_of(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert lines == [
        f"error: Step 20 cannot be saved in {folder}: No space left on device; the newest whole "
        "checkpoint is step 0."
    ]
    monkeypatch.undo()
    assert whole_steps(folder) == [0]
    run_script(monkeypatch, "--output_dir", folder, "--resume", "--epochs", 1)
    assert whole_steps(folder) == [0, 20]


def test_metrics_that_cannot_be_written_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = tmp_path / "run"
    real = logs.Logs.scalars

    def scalars(self, **kwargs):
        self._path = Path("/dev/full")
        real(self, **kwargs)

    monkeypatch.setattr(logs.Logs, "scalars", scalars)
    assert status_of(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder) == 2
    assert "error: /dev/full cannot be used: No space left on device." in capsys.readouterr().err


HOLD = """
import sys, time
from pathlib import Path
from glow_jax.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_on_a_folder_is_refused_until_the_first_dies(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(whole)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for flags in (["--resume", "--epochs", 3], ["--preset", "digits", "--fresh"]):
            assert status_of(monkeypatch, "--output_dir", whole, *flags) == 2
            message = capsys.readouterr().err
            assert f"is in use by another run (process {holder.pid} on " in message
        holder.kill()
        holder.wait()
    with locked(whole):
        pass
    assert len(rows_of(whole)) == 2


def test_resuming_from_an_earlier_step_sets_later_ones_aside(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    run_script(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder)
    run_script(monkeypatch, "--output_dir", folder, "--resume", "--step", 20)
    assert_identical(folder, whole)
    assert [path.name for path in (folder / "set_aside").iterdir()] == ["40"]


def test_metrics_watch_over_convergence_and_the_machine(whole: Path) -> None:
    row = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    phases = ("reading", "training", "evaluating", "sampling", "saving")
    assert all(row[f"seconds_{phase}"] >= 0 for phase in phases)
    assert row["seconds_training"] > 0
    assert row["peak_memory"] > 50e6
    assert row["gradient_norm"] > 0
    assert row["skipped_updates"] == 0
    assert row["images_per_second"] > 0
