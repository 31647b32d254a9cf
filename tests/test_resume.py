"""A run that goes on from its own checkpoint, or starts from another run's."""

import math
import shutil
from pathlib import Path

import pytest
from training_runs import (
    TINY,
    assert_same_run,
    error_of,
    identical,
    metrics_of,
    state_of,
    train,
    two_epochs,
)

import train as train_script
from glow_jax.runs import load_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_epochs(tmp_path_factory)


def test_resume_goes_on_as_if_never_stopped(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = tmp_path / "halves"
    train(monkeypatch, *TINY, "--output_dir", halves, "--epochs", 1)
    train(monkeypatch, "--output_dir", halves, "--resume", "--epochs", 2)
    assert_same_run(trained, halves)
    assert state_of(halves)[1] is not None


@pytest.mark.slow
def test_a_cosine_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, resumed = tmp_path / "one", tmp_path / "resumed"
    cosine = ["--schedule", "cosine", "--final_lr", 1e-4, "--warmup", 0]
    train(monkeypatch, *TINY, *cosine, "--output_dir", one, "--epochs", 2)
    shutil.copytree(one, resumed)
    train(monkeypatch, "--output_dir", resumed, "--resume", "--step", 20)
    assert_same_run(one, resumed)
    # The rate of an epoch's last update, of 20.
    rates = [row["learning_rate"] for row in metrics_of(one)]
    heights = [(1 + math.cos(math.pi * update / 40)) / 2 for update in (19, 39)]
    assert rates == pytest.approx([1e-4 + 1.9e-3 * height for height in heights])


@pytest.mark.slow
def test_more_epochs_stretch_the_cosine_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    line = [*TINY, "--schedule", "cosine", "--warmup", 0, "--output_dir", folder, "--epochs", 1]
    train(monkeypatch, *line)
    assert "cosine" not in capsys.readouterr().out
    train(monkeypatch, "--output_dir", folder, "--resume", "--epochs", 2)
    said = capsys.readouterr().out
    assert (
        "The cosine schedule now ends after 2 epochs instead of 1: the learning rate goes on at "
        "1.00e-03 instead of 0.00e+00, down to 0."
    ) in said
    rates = [row["learning_rate"] for row in metrics_of(folder)]
    assert rates == pytest.approx(
        [1e-3 * (1 + math.cos(math.pi * share)) for share in (19 / 20, 39 / 40)], rel=1e-4
    )
    assert load_run(folder).config.training.epochs == 2


def test_new_run_from_saved_model_and_optimizer(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train(
        monkeypatch,
        *("--preset", "digits", "--saved_model", trained, "--saved_optimizer", trained),
        *("--output_dir", folder, "--epochs", 3, "--seed", 5),
    )
    rows = metrics_of(folder)
    before = metrics_of(trained)[-1]
    assert [row["step"] for row in rows] == [before["step"] + before["step"] // 2]
    assert rows[0]["train_bits_per_dim"] < before["train_bits_per_dim"]
    # The optimizer's state belongs to the parameters as trained, not to their average.
    start, source = load_run(folder, before["step"]), load_run(trained)
    assert identical(start.model, source.model)
    assert not identical(start.model, source.average)


@pytest.mark.slow
def test_openai_adamax_goes_on_by_its_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, resumed, renewed = (tmp_path / name for name in ("one", "resumed", "renewed"))
    flags = [*TINY, "--optimizer", "openai_adamax", "--warmup", 1.5, "--polyak_epochs", 2]
    train(monkeypatch, *flags, "--output_dir", one, "--epochs", 2)
    train(monkeypatch, *flags, "--output_dir", resumed, "--epochs", 1)
    saved = ("--saved_model", resumed, "--saved_optimizer", resumed, "--seed", 3)
    train(monkeypatch, "--preset", "digits", *saved, "--output_dir", renewed, "--epochs", 2)
    train(monkeypatch, "--output_dir", resumed, "--resume", "--epochs", 2)
    assert_same_run(one, resumed)
    # Nothing shows that there were two runs.
    (model, _, optimizer_state), (other, _, other_state) = state_of(one), state_of(renewed)
    assert identical(model, other)
    assert identical(optimizer_state, other_state)
    # The rate of an epoch's last update, of 20.
    rates = [row["learning_rate"] for row in metrics_of(one)]
    assert rates == pytest.approx([2e-3 * 19 / 30, 2e-3])


def test_resume_refuses_another_model(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output_dir", trained, "--resume", "--K", 2]
    message = error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert "K = 1" in message
    assert "2" in message


def test_a_refused_resume_leaves_the_run_as_it_was(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "hparams.json").read_bytes()
    arguments = ["--output_dir", trained, "--resume", "--epochs", 1]
    message = error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert "at step 40, 2 epochs are done, and --epochs is 1; give more." in message
    assert (trained / "hparams.json").read_bytes() == before


def test_resume_refuses_reversible_in_bfloat16(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "hparams.json").read_bytes()
    arguments = ["--output_dir", trained, "--resume", "--epochs", 9]
    arguments += ["--memory", "reversible", "--dtype", "bfloat16"]
    message = error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert "dtype is bfloat16; it must be float32 where memory is reversible" in message
    assert (trained / "hparams.json").read_bytes() == before
