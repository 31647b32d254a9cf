"""What is damaged beside the checkpoints is set aside and named; two runs never share a folder."""

import errno
import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from training_runs import error_of

import glow_jax
import train as train_script
from glow_jax.runs import lock, locked, locked_beside, make_folder, mend_metrics, read_metrics
from glow_jax.runs.metrics import METRICS
from glow_jax.training.logs import Logs

REPOSITORY = Path(__file__).parents[1]
ROWS = [{"epoch": epoch, "step": 20 * epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize(
    "line",
    [
        b'{"epoch": 2, "step": 4\xb0}',
        b"[]",
        b"5",
        b"null",
        b"{}",
        b'{"epoch": "two", "step": 40}',
        b'{"epoch": null, "step": null}',
        b'{"epoch": 2, "step": 1' + b"0" * 400 + b"}",
        b'{"epoch": 2, "step": ' + b"9" * 5000 + b"}",
        b'{"epoch": 2, "step": 40, "train_loss": [1]}',
        b"[" * 100_000,
        b"",
    ],
)
def test_a_damaged_line_is_set_aside_and_named(line: bytes, tmp_path: Path, capsys) -> None:
    first, _, third = TEXT.splitlines()
    damaged = b"\n".join([first, line, third, b""])
    (tmp_path / METRICS).write_bytes(damaged)
    Logs(tmp_path, epochs=3)
    aside = tmp_path / "set_aside" / METRICS
    assert capsys.readouterr().err == (
        f"warning: {tmp_path / METRICS} is damaged in line 2; it was moved to {aside}, and "
        "training goes on with its 2 good lines.\n"
    )
    assert aside.read_bytes() == damaged
    assert read_metrics(tmp_path) == [ROWS[0], ROWS[2]]
    assert mend_metrics(tmp_path) is None


def test_a_line_that_a_kill_cut_short_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_bytes(TEXT[:-9])
    assert mend_metrics(tmp_path) is None
    assert read_metrics(tmp_path) == ROWS[:2]
    (tmp_path / METRICS).write_bytes(TEXT[:-1])
    assert read_metrics(tmp_path) == ROWS


def test_no_flip_blocks_the_logs(tmp_path: Path) -> None:
    draws = random.Random(0)
    for _ in range(100):
        content = bytearray(TEXT)
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        (tmp_path / METRICS).write_bytes(content)
        mend_metrics(tmp_path)
        assert len(read_metrics(tmp_path)) >= 1
    assert len(list((tmp_path / "set_aside").iterdir())) > 30


@pytest.mark.parametrize("name", [METRICS, "tensorboard", "samples"])
def test_a_file_for_a_folder_or_a_folder_for_a_file_is_set_aside(
    name: str, tmp_path: Path, capsys
) -> None:
    if name == METRICS:
        (tmp_path / name / "x").mkdir(parents=True)
    else:
        (tmp_path / name).write_text("x")
    Logs(tmp_path, epochs=1)
    assert f"moved to {tmp_path / 'set_aside' / name}" in capsys.readouterr().err
    assert read_metrics(tmp_path) == []


# Two runs at once

HOLD = """
import sys
from pathlib import Path
from glow_jax.runs.lock import locked, locked_beside
with {"in": locked, "beside": locked_beside}[sys.argv[1]](Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(where: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, where, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_in_use_is_not_moved_aside(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "hparams.json").write_text("{}")
    with holder("in", folder) as process:
        with pytest.raises(glow_jax.GlowError, match=f"in use by .*process {process.pid}"):
            make_folder(folder, fresh=True)
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        process.communicate("go\n")
    make_folder(folder, fresh=True)
    assert len(list(tmp_path.iterdir())) == 2


def test_who_makes_a_folder_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.1)
    with holder("beside", folder) as process:
        with (
            pytest.raises(glow_jax.GlowError, match="being made by"),
            locked_beside(folder),
        ):
            pass
        monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 60)
        timer = threading.Timer(0.2, lambda: process.communicate("go\n"))
        timer.start()
        with locked_beside(folder):
            assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]
        timer.join()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_no_locks_on_the_file_system_is_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def lockf(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.lockf", lockf)
    with locked(tmp_path):
        pass
    assert "warning: " in (words := capsys.readouterr().err)
    assert "cannot be locked (no locks)" in words


def test_a_system_without_locks_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.raises(glow_jax.GlowError, match="on Windows inside WSL 2"), locked(tmp_path):
        pass
    message = error_of(train_script.main, monkeypatch, capsys, "--output_dir", tmp_path / "run")
    assert "glow-jax runs on Linux and macOS, and on Windows inside WSL 2" in message
    assert not (tmp_path / "run").exists()


def test_reading_a_run_needs_no_module_that_windows_lacks() -> None:
    program = (
        "import sys; sys.modules |= dict.fromkeys(('fcntl', 'resource')); import glow_jax, train"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr
