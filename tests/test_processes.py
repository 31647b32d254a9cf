"""Several processes on loopback train as one does, and none of them outlives another for long."""

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from device_runs import weights_of
from training_runs import TINY, metrics_of

import glow_jax
from glow_jax.cli.training_flags import parse_training
from glow_jax.data import load_dataset
from glow_jax.runs import load_run, whole_steps

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def kept_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes compile quickly, and find what others of this file have compiled."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("compiled")
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
        monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        yield


def start(folder: Path, *flags: object, processes: int = 2, devices: int) -> list[subprocess.Popen]:
    """Start train.py in so many processes of so many devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    alone = [sys.executable, "train.py", "--output_dir", folder, "--devices", devices, *flags]
    together = [*alone, "--coordinator", f"localhost:{port}", "--num_processes", processes]
    return [open_process([*together, "--process_id", number]) for number in range(processes)]


def open_process(command: list) -> subprocess.Popen:
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition: Callable[[], object], runs: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        assert all(run.poll() is None for run in runs), finish(runs)
        time.sleep(0.05)


def finish(runs: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Wait for processes: their exit statuses, and what they printed."""
    printed = [run.communicate(timeout=240)[0] for run in runs]
    return [(run.returncode, text) for run, text in zip(runs, printed, strict=True)]


def succeed(*args: object, **kwargs: int) -> list[str]:
    results = finish(start(*args, **kwargs))  # pyright: ignore[reportArgumentType]
    for status, text in results:
        assert status == 0, text
    return [text for _, text in results]


def losses_of(folder: Path) -> np.ndarray:
    names = ("train_bits_per_dim", "validation_bits_per_dim", "test_bits_per_dim")
    return np.array([[row[name] for name in names] for row in metrics_of(folder)])


def assert_same_training(one: Path, other: Path, *, steps: int) -> None:
    np.testing.assert_allclose(losses_of(one), losses_of(other), rtol=0, atol=1e-5)
    models = (weights_of(load_run(folder).model) for folder in (one, other))
    for a, b in zip(*models, strict=True):
        # Adamax moves by the learning rate however small a gradient is: 8e-4 in the second epoch.
        np.testing.assert_allclose(a, b, rtol=0, atol=2 * steps * 8e-4)


def one_process(folder: Path, *flags: object) -> None:
    """Train in this process, on four devices."""
    words = ["--output_dir", folder, "--devices", 4, *flags]
    config = parse_training([str(word) for word in words])
    glow_jax.train(config, load_dataset(config.data))


@pytest.mark.slow
def test_two_processes_are_one_and_stop_together(tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    runs = start(together, *TINY, "--epochs", 2000, "--checkpoint_every", 1000, devices=2)
    wait_until((together / "metrics.jsonl").exists, runs)
    runs[1].terminate()
    results = finish(runs)
    assert [status for status, _ in results] == [143, 143], results
    texts, step = [text for _, text in results], whole_steps(together)[-1]
    assert "4 virtual CPU devices in 2 processes" in texts[0]
    assert f"stopped by SIGTERM after step {step}, which is saved" in texts[0]
    assert "epoch 1/" in texts[0]
    assert "stopped" not in texts[1]  # one process writes logs and prints
    assert len(losses_of(together)) == (step - 1) // 20  # 20 steps an epoch

    # One process goes on from their checkpoint, and is where it had been alone.
    epochs = step // 20 + 1
    one_process(together, "--resume", "--epochs", epochs)
    one_process(alone, *TINY, "--epochs", epochs)
    assert_same_training(together, alone, steps=20 * epochs)


@pytest.mark.slow
def test_two_processes_go_on_from_the_checkpoint_of_one(tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    one_process(together, *TINY, "--epochs", 1)
    shutil.copytree(together, alone)
    texts = succeed(together, "--resume", "--epochs", 2, devices=2)
    assert "going on after step 20" in texts[0]
    one_process(alone, "--resume", "--epochs", 2)
    assert losses_of(together).shape == (2, 3)
    assert_same_training(together, alone, steps=20)


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_down_and_the_run_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    runs = start(folder, *TINY, "--epochs", 2000, "--checkpoint_every", 5, devices=1)
    wait_until(lambda: any(whole_steps(folder)), runs)
    runs[1].kill()
    killed = time.monotonic()
    (status, text), _ = finish(runs)
    assert time.monotonic() - killed < 60
    assert status != 0
    # Ours, or where JAX's own watch is faster, JAX's.
    assert re.search("has lost another process of this run|another task died", text)
    step = whole_steps(folder)[-1]
    epochs = 1 + (step + 1) // 20
    texts = succeed(folder, "--resume", "--epochs", epochs, devices=1)
    assert f"going on after step {step}" in texts[0]
    assert len(losses_of(folder)) == epochs


@pytest.mark.slow
def test_processes_with_different_flags_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    runs = start(folder, *TINY, devices=1)
    runs[1].kill()
    finish(runs[1:])
    runs[1] = open_process([*runs[1].args, "--lr", "0.5"])  # pyright: ignore[reportGeneralTypeIssues]
    for status, text in finish(runs):
        assert status != 0
        assert re.search("started with different flags|lost another process|task died", text)
    assert not whole_steps(folder)
