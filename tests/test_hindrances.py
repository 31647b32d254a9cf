"""A run that is hindered, by its numbers, its disk or another run, says so in one sentence."""

import errno
import io
import itertools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
from training_runs import (
    EPOCHS,
    TINY,
    metrics_of,
    rows_of,
    state_of,
    status_of,
    train,
    two_epochs,
)

from glow_jax.cli.errors import one_line_errors
from glow_jax.runs import CheckpointWriter, metrics, whole_steps
from glow_jax.runs.lock import locked
from glow_jax.training import trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_epochs(tmp_path_factory)


def test_a_batch_that_is_not_finite_is_skipped_and_counted(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer.prepare_images

    def prepare(images, seed, draw, *args, **kwargs):
        return jnp.where(draw == 6, jnp.nan, real(images, seed, draw, *args, **kwargs))

    monkeypatch.setattr(trainer, "prepare_images", prepare)
    folder = tmp_path / "run"
    train(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder)
    rows = rows_of(folder)
    assert [row["skipped_updates"] for row in rows] == [1, 1]
    assert rows[-1]["test_bits_per_dim"] == pytest.approx(
        rows_of(whole)[-1]["test_bits_per_dim"], abs=0.05
    )
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state_of(folder)))


@pytest.mark.slow
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
    train(monkeypatch, "--output_dir", folder, "--resume", "--epochs", 1)
    assert whole_steps(folder) == [0, 20]


def test_metrics_that_cannot_be_written_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folder = tmp_path / "run"

    def full(*_: object) -> object:
        return Path("/dev/full").open("ab")

    monkeypatch.setattr(metrics, "open_inside", full)
    assert status_of(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder) == 2
    file = folder / "metrics.jsonl"
    assert f"error: {file} cannot be used: No space left on device." in capsys.readouterr().err


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


def test_metrics_watch_over_convergence_and_the_machine(whole: Path) -> None:
    row = metrics_of(whole)[-1]
    phases = ("reading", "training", "evaluating", "sampling", "saving")
    assert all(row[f"seconds_{phase}"] >= 0 for phase in phases)
    assert row["seconds_training"] > 0
    assert row["peak_memory"] > 50e6
    assert row["gradient_norm"] > 0
    assert row["skipped_updates"] == 0
    assert row["images_per_second"] > 0


def test_a_name_that_is_no_text_is_printed_with_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8"))
    one_line_errors(lambda: print("written to run\udcff"))()
    assert written.getvalue() == b"written to run\\udcff\n"
