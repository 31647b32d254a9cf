"""Trackers beside TensorBoard: what they are given, and what is said where they cannot be used.

Here a module of the same name stands in for each library, and records what it is called with.
test_tracking_libraries.py uses the libraries themselves.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from training_runs import EPOCHS, TINY, error_of, metrics_of, train

import train as train_script
from glow_jax.config import Config, OutputConfig
from glow_jax.errors import GlowError
from glow_jax.runs import read_config, tracking_id
from glow_jax.training.tracking import check_trackers, open_trackers

Call = tuple[str, dict]


class Recorder:
    """A stand-in for a library: what was called, with what, in order."""

    def __init__(self, name: str):
        self.calls: list[Call] = []
        self.fails_at = ""
        self.module = ModuleType(name)
        vars(self.module).update(
            init=self._init, Image=lambda pixels: pixels, Settings=SimpleNamespace
        )

    def _record(self, called: str, /, **given: object) -> None:
        self.calls.append((called, given))
        if called == self.fails_at:
            raise BrokenPipeError("nobody listens")

    def _init(self, **given: object) -> SimpleNamespace:
        self._record("init", **given)
        return SimpleNamespace(
            define_metric=lambda name, step_metric: None,
            log=lambda values, step=None: self._record("log", values=values, step=step),
            finish=lambda: self._record("finish"),
        )

    def given(self, name: str) -> list[dict]:
        return [given for called, given in self.calls if called == name]


Stand = Callable[[str], Recorder]


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """`stand(name)`: put a recorder in the place of a library."""

    def put(name: str) -> Recorder:
        recorder = Recorder(name)
        monkeypatch.setitem(sys.modules, name, recorder.module)
        return recorder

    for variable in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(variable, "")  # so that what a run sets is taken back, too
        monkeypatch.delenv(variable)
    return put


@pytest.mark.slow
def test_both_get_every_number_and_picture_and_go_on_in_the_same_run(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    recorders = {name: stand(name) for name in ("wandb", "trackio")}
    flags = ["--wandb", "--trackio", "--output_dir", folder]
    train(monkeypatch, *TINY, "--epochs", 1, *flags)
    train(monkeypatch, "--resume", *EPOCHS, "--output_dir", folder)  # the flags are kept
    run_id = json.loads((folder / "tracking.json").read_text())["id"]
    rows = metrics_of(folder)
    for name, recorder in recorders.items():
        starts = recorder.given("init")
        assert len(starts) == len(recorder.given("finish")) == 2
        assert [start["resume"] for start in starts] == ["allow", "allow"]
        assert {start["project"] for start in starts} == {"glow-jax"}
        assert starts[0]["config"]["model"]["K"] == 1
        if name == "wandb":
            assert [(start["id"], start["mode"]) for start in starts] == 2 * [(run_id, "offline")]
            assert {(start["dir"], start["name"]) for start in starts} == {(folder, "run")}
        else:
            assert {start["name"] for start in starts} == {f"run-{run_id}"}
        logged = recorder.given("log")
        assert len(logged) == 4  # of each epoch a picture and its numbers
        for row, picture, numbers in zip(rows, logged[::2], logged[1::2], strict=True):
            pixels = picture["values"]["samples"]
            assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
            known = {key: value for key, value in row.items() if value is not None}
            shown = dict(numbers["values"])
            step = shown.pop("step") if name == "wandb" else numbers["step"]
            del known["epoch"]
            assert step == known.pop("step")
            assert shown == known


@pytest.mark.slow
def test_what_the_user_has_chosen_stays(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = stand("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    flags = ["--wandb", "--epochs", 1, "--output_dir", tmp_path / "run"]
    train(monkeypatch, *TINY, *flags)
    (start,) = recorder.given("init")
    assert (start["mode"], start["project"]) == ("online", "mine")
    (tmp_path / "run" / "tracking.json").unlink()
    train(monkeypatch, "--resume", *EPOCHS, "--no_wandb", "--output_dir", tmp_path / "run")
    assert len(recorder.given("init")) == 1
    assert not (tmp_path / "run" / "tracking.json").exists()
    assert not read_config(tmp_path / "run").output.wandb


@pytest.mark.parametrize(
    ("mode", "reports"), [(None, "false"), ("offline", "false"), ("online", None)]
)
def test_offline_nothing_is_reported_to_the_makers_of_wandb(
    mode: str | None, reports: str | None, stand: Stand, tmp_path: Path, monkeypatch
) -> None:
    """Its reports about itself do not see the mode that `init` is given."""
    recorder = stand("wandb")
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    open_trackers(Config(output=OutputConfig(output_dir=str(tmp_path), wandb=True)))
    (start,) = recorder.given("init")
    assert start["mode"] == os.environ["WANDB_MODE"] == (mode or "offline")
    assert os.environ.get("WANDB_ERROR_REPORTING") == reports


@pytest.mark.parametrize("name", ["wandb", "trackio"])
@pytest.mark.parametrize("there", ["nothing", "a folder of this name"])
def test_without_the_library_nothing_is_written(
    name: str,
    there: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = None if there == "nothing" else ModuleType(name)
    monkeypatch.setitem(sys.modules, name, missing)
    folder = tmp_path / "run"
    flags = [f"--{name}", *EPOCHS, "--output_dir", folder]
    message = error_of(train_script.main, monkeypatch, capsys, *TINY, *flags)
    assert f"--{name} needs its library: pip install {name}" in message
    assert not folder.exists()


@pytest.mark.parametrize("place", ["log", "finish"])
@pytest.mark.slow
def test_a_tracker_that_fails_ends_no_training(
    place: str,
    stand: Stand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorder = stand("wandb")
    recorder.fails_at = place
    train(monkeypatch, *TINY, *EPOCHS, "--wandb", "--output_dir", tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("warning: wandb has failed, and gets nothing more of this run: nobody") == 1
    assert len(recorder.given("log")) == (1 if place == "log" else 4)
    assert len(metrics_of(tmp_path / "run")) == 2


def test_a_tracker_that_cannot_be_opened_is_one_sentence(
    stand: Stand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand("trackio").fails_at = "init"
    flags = ["--trackio", *EPOCHS, "--output_dir", tmp_path / "run"]
    message = error_of(train_script.main, monkeypatch, capsys, *TINY, *flags)
    assert "--trackio cannot be used: nobody listens." in message


def test_a_link_in_the_place_of_its_folder_is_refused(stand: Stand, tmp_path: Path) -> None:
    stand("wandb")
    (tmp_path / "wandb").symlink_to(tmp_path / "elsewhere")
    config = Config(output=OutputConfig(output_dir=str(tmp_path), wandb=True))
    with pytest.raises(GlowError, match="wandb is a symbolic link"):
        open_trackers(config)


@pytest.mark.parametrize("content", ["{}", '{"id": "../../x"}', '{"id": 7}', "[1]"])
def test_an_id_is_eight_digits_and_nothing_else(content: str, tmp_path: Path) -> None:
    (tmp_path / "tracking.json").write_text(content)
    with pytest.raises(GlowError, match="remove the file"):
        tracking_id(tmp_path)


def test_an_id_is_drawn_once_and_differs_between_runs(tmp_path: Path) -> None:
    first = tracking_id(tmp_path)
    assert tracking_id(tmp_path) == first
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert tracking_id(tmp_path) != first


def test_a_run_without_trackers_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    check_trackers(OutputConfig())
