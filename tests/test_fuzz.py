"""Damaged files, folders and command lines by the hundred, and whether the fuzzer finds faults.

`python -m tests.fuzz` runs more of them, in processes of their own.
"""

import os
import pickle
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from torch_files import save, tiny_values

from glow_jax import GlowError
from glow_jax.bridge import from_torch
from glow_jax.cli.from_torch import main as from_torch_main
from tests.fuzz import __main__ as runner
from tests.fuzz.case import CANARY, OUTSIDE, Case, new_folder
from tests.fuzz.commands import run_command
from tests.fuzz.damage import ODD, damage_json
from tests.fuzz.kinds import KINDS, maker_of
from tests.fuzz.watch import Limits, Outcome, Verdict, judge, remove

FIRST = 1_000_000  # beyond what the runner takes by default
EVERYDAY, SLOW = 25, 175


@pytest.mark.parametrize(
    ("first", "count"),
    [(FIRST, EVERYDAY), pytest.param(FIRST + EVERYDAY, SLOW, marks=pytest.mark.slow)],
    ids=["everyday", "slow"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_case_ends_well_or_is_refused_in_one_sentence(
    kind: str, first: int, count: int, tmp_path: Path
) -> None:
    faults: dict[int, Outcome] = {}
    verdicts = set()
    for seed in range(first, first + count):
        folder = tmp_path / str(seed)
        outcome = judge(maker_of(kind), seed, folder)
        verdicts.add(outcome.verdict)
        if not outcome.is_good:
            faults[seed] = outcome
        remove(folder)
    assert not faults
    assert verdicts == {"ended well", "refused"}  # else the damage is too light, or too heavy


def test_what_one_case_changes_no_other_sees() -> None:
    before, rng = repr(ODD), random.Random(0)
    for _ in range(3000):
        damage_json({"a": [1], "b": {}}, rng)
    assert repr(ODD) == before


def judged(run: Callable[[], object], folder: Path, limits: Limits | None = None) -> Verdict:
    def make(_: int, folder: Path) -> Case:
        new_folder(folder)
        return Case(run, output=folder / "converted")

    return judge(make, 0, folder, limits).verdict


def convert(folder: Path) -> Callable[[], None]:
    file = save(tiny_values(), folder / "glow.pt")
    words = [str(file), "--output", "converted", "--no_check"]
    return lambda: run_command(from_torch_main, words)


def raise_error(error: BaseException) -> None:
    raise error


def break_reader(monkeypatch: pytest.MonkeyPatch, does: Callable[..., object]) -> None:
    monkeypatch.setattr(from_torch, "read_checkpoint", does)


def test_a_whole_file_ends_well(tmp_path: Path) -> None:
    assert judged(convert(tmp_path), tmp_path / "case") == "ended well"
    assert (tmp_path / "case" / "converted").is_dir()


@pytest.mark.parametrize(
    ("does", "verdict"),
    [
        (lambda *_, **__: raise_error(GlowError("No.")), "refused"),
        (lambda *_, **__: raise_error(MemoryError()), "over memory"),
        (lambda *_, **__: len(bytearray(b"\1") * 2**27), "over memory"),
        (lambda *_, **__: time.sleep(10), "over time"),
        (lambda *_, **__: Path("x").write_text("beside"), "refused"),
        (lambda *_, **__: Path("../x").write_text("outside"), "wrote outside"),
        (lambda *_, **__: Path(OUTSIDE, "precious.json").unlink(), "wrote outside"),
        (lambda *_, **__: Path(OUTSIDE, CANARY).touch(), "ran code"),
        (lambda *_, **__: os.system("true"), "ran code"),
        (lambda *_, **__: pickle.loads(pickle.dumps(Path("a"))), "ran code"),
        (lambda *_, **__: os.mkdir("converted"), "left output"),
    ],
)
def test_a_broken_reader_is_reported(
    does: Callable[..., object],
    verdict: Verdict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_reader(monkeypatch, does)
    limits = Limits(seconds=1, memory=2**26)
    assert judged(convert(tmp_path), tmp_path / "case", limits) == verdict


def test_an_error_that_nobody_caught_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_torch, "to_glow", lambda *_: raise_error(KeyError("x")))
    assert judged(convert(tmp_path), tmp_path / "case") == "traceback"


@pytest.mark.parametrize("message", ["No.\nNever.", "x" * 10**4, "\x1b[31mNo.", ""])
def test_a_message_that_is_no_sentence_is_reported(message: str, tmp_path: Path) -> None:
    assert judged(lambda: raise_error(GlowError(message)), tmp_path) == "no sentence"


def test_a_model_of_no_use_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = maker_of("checkpoints")
    seeds = (
        seed for seed in range(100) if judge(make, seed, tmp_path / "a").verdict == "ended well"
    )
    seed = next(seeds)
    to_glow = from_torch.to_glow

    def to_nan(values: dict, config: object) -> object:
        return to_glow({key: value * float("nan") for key, value in values.items()}, config)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(from_torch, "to_glow", to_nan)
    shutil.rmtree(tmp_path / "a")
    assert judge(make, seed, tmp_path / "a").verdict == "unusable"


@pytest.mark.slow
def test_the_runner_survives_what_a_case_does_to_its_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [("faulty", seed) for seed in (0, 1, 2, 3, 0)]
    limits = Limits(seconds=1, memory=2**32)
    faults, table = runner.run_cases(jobs, tmp_path, None, 1, limits)
    assert faults == jobs[1:4]
    assert table["faulty"] == {"refused": 2, "died": 1, "over time": 1, "over memory": 1}
    assert "faulty 1: died" in capsys.readouterr().out
