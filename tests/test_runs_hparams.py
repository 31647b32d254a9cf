"""`hparams.json` of any content is bounded, and may not differ from what a step was saved with."""

import json
from pathlib import Path

import pytest
from damaged_runs import SCORES, refusal, step_of, three_steps

from glow_jax.config import OptimizerConfig
from glow_jax.errors import GlowError
from glow_jax.hub import load
from glow_jax.runs import load_run
from glow_jax.runs.digests import digests_of
from glow_jax.runs.hparams import read_config


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return three_steps(tmp_path_factory, tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("model", "L", 10**400),
        ("model", "L", 20000),
        ("model", "K", 10**9),
        ("model", "hidden_channels", 10**12),
        ("model", "y_classes", 10**15),
        ("model", "image_shape", [2**40, 2**40, 1]),
        ("model", "image_shape", [10**400, 2, 1]),
        ("model", "actnorm_scale", float("inf")),
        ("training", "y_weight", 10**400),
        ("training", "batch_size", 10**30),
        ("optimizer", "lr", float("nan")),
        ("output", "devices", 10**12),
        ("output", "checkpoint_every", "9" * 5000),
        ("data", "dataset", ["x"] * 9000),
    ],
)
def test_numbers_are_bounded_before_anything_is_computed(
    section: str, name: str, value: object, run: Path
) -> None:
    values = json.loads((run / "hparams.json").read_text())
    values[section][name] = value
    (run / "hparams.json").write_text(json.dumps(values))
    message = refusal(run)
    assert name in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"model": {"L": ' + "9" * 5000 + "}}",
        '{"' + "x" * 90_000 + '": 1}',
        '{"version": 1e999}',
        '{"version": [1]}',
        " " * 2**21,
    ],
)
def test_hparams_of_any_content_are_one_short_sentence(content: str, run: Path) -> None:
    (run / "hparams.json").write_text(content)
    message = refusal(run)
    assert str(run / "hparams.json") in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("training", "batch_size", 65), ("data", "mutation_rate", 0.5), ("model", "n_bits", 7)],
)
def test_a_flip_in_what_a_run_keeps_is_named(
    section: str, name: str, value: object, run: Path
) -> None:
    values = json.loads((run / "hparams.json").read_text())
    was, values[section][name] = values[section][name], value
    (run / "hparams.json").write_text(json.dumps(values))
    message = refusal(run)
    assert f"{run / 'hparams.json'} has {section}.{name} = {value}, but step 7" in message
    assert repr(str(was)) in message
    # What a resumed run may change may change, and steps of before do not say what they were.
    values[section][name] = was
    values["training"]["epochs"] = 7
    (run / "hparams.json").write_text(json.dumps(values))
    assert load_run(run).config.training.epochs == 7
    for step in SCORES:
        (step_of(run, step) / "origin.json").unlink()
        (step_of(run, step) / "sha256.json").unlink()
        digests = digests_of(step_of(run, step))
        (step_of(run, step) / "sha256.json").write_text(json.dumps(digests))
    values[section][name] = value
    (run / "hparams.json").write_text(json.dumps(values))
    load(run)


@pytest.mark.parametrize(
    ("version", "pad_ones", "padding"), [(1, True, "ones"), (2, False, "zeros")]
)
def test_the_padding_of_older_folders_has_another_name(
    version: int, pad_ones: bool, padding: str, tmp_path: Path
) -> None:
    values = {"version": version, "model": {"K": 3, "pad_ones": pad_ones}}
    (tmp_path / "hparams.json").write_text(json.dumps(values))
    config = read_config(tmp_path)
    assert (config.model.K, config.model.padding) == (3, padding)


def test_runs_of_before_schedules_have_the_constant_one(tmp_path: Path) -> None:
    (tmp_path / "hparams.json").write_text('{"version": 4, "optimizer": {"lr": 0.1}}')
    assert read_config(tmp_path).optimizer == OptimizerConfig(lr=0.1, schedule="constant")


def test_runs_of_before_trackers_have_none(tmp_path: Path) -> None:
    (tmp_path / "hparams.json").write_text('{"version": 5, "output": {"cuda": false}}')
    output = read_config(tmp_path).output
    assert (output.cuda, output.wandb, output.trackio) == (False, False, False)


def test_the_older_name_of_the_padding_is_unknown_in_this_version(tmp_path: Path) -> None:
    (tmp_path / "hparams.json").write_text('{"version": 4, "model": {"pad_ones": true}}')
    with pytest.raises(GlowError, match="pad_ones"):
        read_config(tmp_path)
