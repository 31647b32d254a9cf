"""Tiny training runs, and what tests look at in their folders."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from flax import nnx

import train as train_script
from glow_jax.runs import load_optimizer_state, load_run
from glow_jax.training.optimizer import make_optimizer

# 20 steps an epoch.
TINY = ["--preset", "digits", "--K", "1", "--L", "1", "--hidden_channels", "4", "--seed", "3"]
EPOCHS = ["--epochs", "2"]


def run_script(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run a script in this process."""
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
    main()


def train(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run `train.py` in this process."""
    run_script(train_script.main, monkeypatch, *words)


def status_of(monkeypatch: pytest.MonkeyPatch, *words: object) -> object:
    """The status with which `train.py` exits."""
    with pytest.raises(SystemExit) as exit_info:
        train(monkeypatch, *words)
    return exit_info.value.code


def error_of(
    main: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *words: object,
) -> str:
    """The one line that a script prints before it exits with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        run_script(main, monkeypatch, *words)
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    message = [line for line in lines if line.startswith("error: ")]
    assert len(message) == 1
    assert lines[-1] == message[0]
    return message[0]


def two_epochs(factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs that nothing hinders, which several files read.

    Nothing may change its checkpoints, its metrics or its configuration.
    """
    folder = factory.getbasetemp() / "two_epochs"
    if not folder.exists():
        with pytest.MonkeyPatch.context() as monkeypatch:
            train(monkeypatch, *TINY, *EPOCHS, "--output_dir", folder)
    return folder


def metrics_of(folder: Path) -> list[dict]:
    """The lines of metrics."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rows_of(folder: Path) -> list[dict]:
    """The lines of metrics, without what the machine decides."""
    machine = ("seconds", "images_per_second", "peak")
    return [
        {name: value for name, value in row.items() if not name.startswith(machine)}
        for row in metrics_of(folder)
    ]


def state_of(folder: Path) -> tuple:
    """The model, its average and the optimizer's state of the newest checkpoint."""
    run = load_run(folder)
    optimizer = make_optimizer(run.config.optimizer, 1)
    target = jax.eval_shape(optimizer.init, nnx.state(run.model, nnx.Param))
    return run.model, run.average, load_optimizer_state(folder, target)


def identical(a: object, b: object) -> bool:
    """Whether two trees agree in every bit."""
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and bool((x == y).all()), a, b)
    return jax.tree.all(same)


def assert_same_run(one: Path, other: Path) -> None:
    """Check that two runs logged the same and ended in the same state."""
    assert rows_of(one) == rows_of(other)
    assert identical(state_of(one), state_of(other))
