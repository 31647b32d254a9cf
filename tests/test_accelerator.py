"""The benchmark of accelerators: what it keeps, what it says, and that it runs on a CPU."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch")

from glow_jax.errors import GlowError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("accelerator", "accelerator_parts", "machine", "peaks", "speed", "speed_rounds", "workers")
TRIAL = "--cpu --model tiny --batch_size 2 --batch_sizes 2 --steps 3 --rounds 1 --minutes 60"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The benchmarks' modules, which import one another by their bare names."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = {}
    for name in NAMES:
        found[name] = import_module(name)
        monkeypatch.setitem(sys.modules, name, found[name])
    return found


def task_of(modules: dict[str, ModuleType], **changes: object) -> Any:
    task = modules["accelerator_parts"].Task("tiny", 2, (2, 4), 3, 1, "cpu", None, 1e9)
    return replace(task, **changes)


def test_what_fails_is_said_and_what_was_found_is_kept(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    accelerator, parts = modules["accelerator"], modules["accelerator_parts"]
    seen = []

    def breaks(task: object) -> Iterator[object]:
        yield parts.Entry({"x": 1.5}, {"x": "1.50"})
        seen.append((tmp_path / "out.md").read_text())
        raise GlowError("Traceback:\nRuntimeError: out of memory")

    def is_left_out(task: object) -> Iterator[object]:
        raise parts.LeftOut("PyTorch is not there.")
        yield

    def works(task: object) -> Iterator[object]:
        yield "Batch 8 was left out."
        yield parts.Entry({"y": 2}, {"y": "2"})

    for name, part in (("parity", breaks), ("memory", is_left_out), ("speed", works)):
        monkeypatch.setitem(parts.PARTS, name, (part, 1))
    report = accelerator.Report(accelerator.Arguments(output=tmp_path / "out"), "a machine")
    held = [report.run(name, task_of(modules), 1) for name in ("parity", "memory", "speed")]
    assert held == [False, True, True]
    assert "| 1.50 |" in seen[0]  # written before the part failed

    found = json.loads((tmp_path / "out.json").read_text())
    assert found["machine"] == "a machine"
    assert found["parts"] == {
        "parity": {"rows": [{"x": 1.5}], "notes": ["Failed: RuntimeError: out of memory"]},
        "memory": {"rows": [], "notes": ["Left out: PyTorch is not there."]},
        "speed": {"rows": [{"y": 2}], "notes": ["Batch 8 was left out."]},
    }
    text = (tmp_path / "out.md").read_text()
    for line in ("# a machine", "| 1.50 |", "- Failed: RuntimeError: out of memory", "| 2 |"):
        assert line in text.splitlines()


class Fake:
    """A `Worker` that answers at once."""

    answers: dict[str, object]

    def __init__(self, module: str, *arguments: Any, until: float = 0.0):
        self.module, self.arguments, self.until = module, arguments, until

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, method: str, *arguments: object) -> None:
        pass

    def answer(self) -> None:
        if self.module == "speed_torch" and "torch_compiled" in self.arguments[1]:
            raise GlowError("The process failed: ...\nInductorError: no compiler")

    def ask(self, method: str, *arguments: Any) -> object:
        if method == "model_and_input":
            return [], None
        if method == "warm_up":
            return self.answer()
        if method == "run":
            name, _, task, times = arguments
            if name == "torch_layers" and task == "training":
                raise GlowError("Traceback\nOutOfMemoryError: too large")
            return 0.5 * max(1, times) if name == "jax" else 1.0 * max(1, times)
        return self.answers.get(method, 1e9)


def test_a_side_that_fails_leaves_the_others_their_rates(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, rounds = modules["accelerator_parts"], modules["speed_rounds"]
    monkeypatch.setattr(rounds, "Worker", Fake)
    Fake.answers = {}
    found = list(parts.speed(task_of(modules, card="NVIDIA H100 80GB HBM3", batch_sizes=(2,))))
    entries = [entry for entry in found if not isinstance(entry, str)]
    assert [(e.record["task"], e.record["precision"]) for e in entries] == [
        (task, precision)
        for task in ("training", "likelihood", "sampling")
        for precision in ("high", "highest")
    ]
    first, last = entries[0], entries[-1]
    assert first.record["rates"] == {"jax": [4.0], "torch": [2.0]}
    assert first.cells["glow-jax over reference"] == "**2.00** (2.00 to 2.00)"
    assert first.cells["over layer by layer"] == "-"
    assert last.record["rates"].keys() == {"jax", "torch", "torch_layers"}
    assert first.cells["glow-jax of the published peak"].endswith("%")
    assert "layer by layer at batch 2, training: OutOfMemoryError: too large" in found
    assert "torch.compile at batch 2, sampling: InductorError: no compiler" in found


def collect(parts: Iterator[object], found: list[object]) -> None:
    """Add what comes to a list, which keeps it if an error follows."""
    for part in parts:
        found.append(part)


def test_what_there_is_no_time_or_no_library_for_is_said(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = modules["accelerator_parts"]
    monkeypatch.setattr(modules["speed_rounds"], "Worker", Fake)
    monkeypatch.setattr(parts, "time", FakeClock())
    task = task_of(modules, card="Unknown 1", without_reference="No GPU.", until=25.0)
    found: list[object] = []
    with pytest.raises(GlowError, match="No speed was measured"):
        collect(parts.speed(task), found)
    assert "Without PyTorch: No GPU." in found
    assert any(isinstance(f, str) and f.startswith("No published peak of Unknown 1") for f in found)
    assert any(isinstance(f, str) and f.startswith("Batch 4 was left out: ") for f in found)
    with pytest.raises(parts.LeftOut, match="No GPU"):
        next(parts.parity(task))


class FakeClock:
    """A clock on which ten seconds pass with each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 10
        return self.now


def test_peaks_by_the_names_of_cards(modules: dict[str, ModuleType]) -> None:
    peak = modules["peaks"].published_peak
    assert peak("NVIDIA H100 80GB HBM3").at("highest") == 67e12
    assert peak("NVIDIA A100-SXM4-80GB").at("high") == 156e12
    assert peak("NVIDIA L40S").tf32 == 183
    unknown_names = ("NVIDIA H100 NVL", "NVIDIA A10G", "NVIDIA L400", "cpu")
    for unknown in (*unknown_names, "NVIDIA H100 80GB HBM3 MIG 1g.10gb"):
        assert peak(unknown) is None


def test_a_machine_without_a_gpu_is_one_clear_sentence(
    modules: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    accelerator = modules["accelerator"]
    Fake.answers = {"platform": "cpu", "machine": "here", "without_reference": None}
    monkeypatch.setattr(accelerator, "Worker", Fake)
    monkeypatch.setattr(accelerator, "set_environment", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["accelerator.py", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        accelerator.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: JAX finds no GPU here: install JAX for it")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("platform", "installed", "cuda", "seen", "expected"),
    [
        ("gpu", False, "12.6", True, "PyTorch is not installed"),
        ("gpu", True, None, False, "is built for CPUs only"),
        ("gpu", True, "12.6", False, "finds no GPU, though JAX does"),
        ("gpu", True, "12.6", True, None),
        ("cpu", True, None, False, None),
    ],
)
def test_why_the_reference_cannot_compute(
    modules: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    installed: bool,
    cuda: str | None,
    seen: bool,
    expected: str | None,
) -> None:
    import torch

    machine = modules["machine"]
    monkeypatch.setattr(machine.Side, "platform", lambda _: platform)
    monkeypatch.setattr(machine, "find_spec", lambda _: True if installed else None)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    found = machine.Side().without_reference()
    assert found is None if expected is None else expected in found


def test_a_process_goes_on_after_an_error_and_ends_when_its_time_is_over(
    modules: dict[str, ModuleType],
) -> None:
    with modules["workers"].Worker("worker_side") as worker:
        with pytest.raises(GlowError, match="RuntimeError: nothing is left"):
            worker.ask("fail")
        assert worker.ask("double", 4) == 8
        worker.until = time.monotonic() + 0.2
        with pytest.raises(GlowError, match="took too long and was ended"):
            worker.ask("sleep")
        worker.until = math.inf
        with pytest.raises(GlowError, match="has died"):
            worker.ask("double", 4)


@pytest.mark.slow
def test_the_whole_command_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "accelerator.py", *TRIAL.split()]
    command += ["--output", tmp_path / "out" / "here"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "here.json").read_text())["parts"]
    rows = {name: len(part["rows"]) for name, part in found.items()}
    # Five figures at two precisions; three memories and two programs; a run that resumed exactly.
    assert rows == {"parity": 10, "memory": 5, "training": 4, "resume": 1, "speed": 6}
    sides = {"jax", "torch", "torch_layers", "torch_compiled"}
    assert all(row["rates"].keys() == sides for row in found["speed"]["rows"])
    by_precision = {row["precision"]: row["last"] for row in found["training"]["rows"][:2]}
    assert by_precision["high"] == by_precision["highest"]  # on a CPU they are the same
    text = (tmp_path / "out" / "here.md").read_text()
    assert all(f"## {name}" in text for name in rows)
