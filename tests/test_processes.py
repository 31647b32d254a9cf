"""Several processes on loopback train as one does, and none of them outlives another for long."""

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from glow_jax.runs import load_run, whole_steps

ROOT = Path(__file__).parent.parent
TINY = ["--preset", "digits", "--K", "1", "--L", "1", "--hidden_channels", "4", "--seed", "3"]


def start(folder: Path, *flags: object, processes: int = 1, devices: int) -> list[subprocess.Popen]:
    """Start train.py in so many processes of so many devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    alone = [sys.executable, "train.py", "--output_dir", folder, "--devices", devices, *flags]
    together = ["--coordinator", f"localhost:{port}", "--num_processes", processes]
    commands = [
        [*alone, *([*together, "--process_id", number] if processes > 1 else [])]
        for number in range(processes)
    ]
    return [
        subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]


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
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = ("train_bits_per_dim", "validation_bits_per_dim", "test_bits_per_dim")
    return np.array([[row[name] for name in names] for row in rows])


def test_two_processes_of_two_devices_are_one_of_four(tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    texts = succeed(together, *TINY, "--epochs", 1, processes=2, devices=2)
    assert "4 virtual CPU devices in 2 processes" in texts[0]
    assert "epoch" not in texts[1]  # one process writes logs and prints
    succeed(alone, *TINY, "--epochs", 1, devices=4)
    np.testing.assert_allclose(losses_of(together), losses_of(alone), rtol=0, atol=1e-5)

    # Each goes on from the other's checkpoint.
    for folder, processes, devices in ((together, 1, 4), (alone, 2, 2)):
        resumed = ["--resume", "--epochs", 2]
        texts = succeed(folder, *resumed, processes=processes, devices=devices)
        assert "going on after step 20" in texts[0]
    assert losses_of(together).shape == (2, 3)
    np.testing.assert_allclose(losses_of(together), losses_of(alone), rtol=0, atol=1e-5)
    one, other = (jax.tree.leaves(load_run(folder).model) for folder in (together, alone))
    for a, b in zip(one, other, strict=True):
        # Adamax moves by the learning rate however small a gradient is: 40 steps of at most 8e-4.
        np.testing.assert_allclose(a, b, rtol=0, atol=2 * 40 * 8e-4)


def test_a_process_that_dies_takes_the_others_down_and_the_run_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    runs = start(folder, *TINY, "--epochs", 2000, "--checkpoint_every", 5, processes=2, devices=1)
    deadline = time.monotonic() + 200
    while not any(step for step in whole_steps(folder)):
        assert time.monotonic() < deadline
        assert all(run.poll() is None for run in runs), finish(runs)
        time.sleep(0.1)
    runs[1].kill()
    killed = time.monotonic()
    (status, text), _ = finish(runs)
    assert time.monotonic() - killed < 60
    assert status != 0
    # Ours, or where JAX's own watch is faster, JAX's.
    assert re.search("has lost another process of this run|another task died", text)
    step = whole_steps(folder)[-1]
    epochs = 1 + (step + 1) // 20
    texts = succeed(folder, "--resume", "--epochs", epochs, processes=2, devices=1)
    assert f"going on after step {step}" in texts[0]
    assert len(losses_of(folder)) == epochs


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    runs = start(folder, *TINY, "--epochs", 2000, "--checkpoint_every", 50, processes=2, devices=1)
    while not whole_steps(folder):
        assert all(run.poll() is None for run in runs), finish(runs)
        time.sleep(0.1)
    time.sleep(8)  # until both listen
    runs[1].terminate()
    results = finish(runs)
    assert [status for status, _ in results] == [143, 143], results
    step = whole_steps(folder)[-1]
    assert f"stopped by SIGTERM after step {step}, which is saved" in results[0][1]


def test_processes_with_different_flags_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    runs = start(folder, *TINY, processes=2, devices=1)
    runs[1].kill()
    finish(runs[1:])
    command = [*map(str, runs[1].args), "--lr", "0.5"]  # pyright: ignore[reportArgumentType]
    runs[1] = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for status, text in finish(runs):
        assert status != 0
        assert re.search("started with different flags|lost another process|task died", text)
    assert not whole_steps(folder)
