"""Weights & Biases and Trackio themselves: `pip install -e '.[tracking]'`.

Without a library its test is skipped. test_tracking.py has what is given to them.
"""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import EPOCHS, TINY, metrics_of

pytestmark = pytest.mark.slow

TRAIN = Path(__file__).parents[1] / "train.py"
STEPS = 20  # of an epoch
# Python imports this first. It notes every host that a program looks up or connects to.
WATCH = """
import os, sys

def note(event, given):
    if event == "socket.getaddrinfo":
        host = given[0]
    elif event == "socket.connect" and isinstance(given[1], tuple):  # else a socket of this machine
        host = given[1]
    else:
        return
    with open(os.environ["WATCHED"], "a") as file:
        print(host, file=file)

sys.addaudithook(note)
"""


def needs(library: str) -> pytest.MarkDecorator:
    is_missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(is_missing, reason=f"pip install {library}")


def train_twice(tmp_path: Path, flag: str, **more: str) -> Path:
    """The folder of a run of one epoch that is resumed for another, by programs of their own."""
    folder = tmp_path / "run"
    chosen = {name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_"))}
    variables = {name: value for name, value in os.environ.items() if name not in chosen}
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    variables |= {"PYTHONPATH": str(tmp_path / "watch"), "WATCHED": str(tmp_path / "hosts")}
    variables["TRACKIO_DIR"] = str(tmp_path / "trackio")
    for words in ([*TINY, flag, "--epochs", "1"], ["--resume", *EPOCHS]):
        done = subprocess.run(
            [sys.executable, TRAIN, *words, "--output_dir", folder],
            cwd=tmp_path,
            env=variables | more,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "has failed" not in done.stderr
    assert len(metrics_of(folder)) == 2
    return folder


def hosts(tmp_path: Path) -> set[str]:
    """What the programs looked up or connected to."""
    path = tmp_path / "hosts"
    return set(path.read_text().splitlines()) if path.exists() else set()


@needs("trackio")
def test_trackio_has_both_epochs_in_one_run(tmp_path: Path) -> None:
    folder = train_twice(tmp_path, "--trackio")
    run_id = json.loads((folder / "tracking.json").read_text())["id"]
    (path,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    assert {name for name, _, _ in rows} == {f"run-{run_id}"}
    for number, metrics in enumerate(metrics_of(folder), start=1):
        logged = [json.loads(values) for _, step, values in rows if step == number * STEPS]
        (numbers,) = (values for values in logged if "train_loss" in values)
        assert numbers["test_bits_per_dim"] == pytest.approx(metrics["test_bits_per_dim"])
        assert sum("samples" in values for values in logged) == 1
    assert hosts(tmp_path) == set()


@needs("trackio")
def test_trackio_sends_where_its_own_variable_says(tmp_path: Path) -> None:
    """The documentation says so; nobody listens there."""
    train_twice(tmp_path, "--trackio", TRACKIO_SERVER_URL="http://127.0.0.1:9/?write_token=1")
    assert "('127.0.0.1', 9)" in hosts(tmp_path)


@needs("wandb")
def test_weights_and_biases_has_both_epochs_under_one_id(tmp_path: Path) -> None:
    folder = train_twice(tmp_path, "--wandb")
    run_id = json.loads((folder / "tracking.json").read_text())["id"]
    starts = sorted((folder / "wandb").glob(f"offline-run-*-{run_id}"))
    assert len(starts) == len(list((folder / "wandb").glob("offline-run-*"))) == 2
    assert not (tmp_path / "wandb").exists()
    for start, metrics in zip(starts, metrics_of(folder), strict=True):
        content = (start / f"run-{run_id}.wandb").read_bytes()
        assert str(metrics["test_bits_per_dim"])[:8].encode() in content
        assert len(list((start / "files" / "media" / "images").glob("samples_*.png"))) == 1
    assert hosts(tmp_path) == set()
