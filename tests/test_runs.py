"""Run folders: what is saved comes back bit for bit, and damage is named."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from training_runs import identical

import glow_jax
from glow_jax.config import Config, ModelConfig
from glow_jax.hub import load
from glow_jax.runs import (
    CheckpointWriter,
    load_optimizer_state,
    load_run,
    save_weights,
    whole_steps,
    write_config,
)

CONFIG = Config(
    model=ModelConfig(
        K=2, L=2, hidden_channels=4, image_shape=(4, 4, 1), flow_permutation="shuffle"
    )
)


@pytest.fixture(scope="module")
def model() -> glow_jax.Glow:
    return nnx.jit(lambda: glow_jax.Glow(CONFIG.model, rngs=nnx.Rngs(0)))()


@pytest.fixture
def run(model: glow_jax.Glow, tmp_path: Path) -> Path:
    save_weights(tmp_path / "run", CONFIG, model, step=5)
    return tmp_path / "run"


def test_round_trip_is_exact(model: glow_jax.Glow, run: Path) -> None:
    loaded = load_run(run)
    assert identical(loaded.model, model)
    assert (loaded.step, loaded.config, loaded.average) == (5, CONFIG, None)


def test_average_is_what_load_returns(model: glow_jax.Glow, tmp_path: Path) -> None:
    average = nnx.clone(model)
    nnx.update(average, jax.tree.map(lambda leaf: leaf + 1, nnx.state(model, nnx.Param)))
    write_config(tmp_path, CONFIG)
    with CheckpointWriter(tmp_path, keep_best=False) as writer:
        writer.save(1, model, average=average)
    assert identical(load(tmp_path), average)
    assert identical(load_run(tmp_path).model, model)


def test_newest_two_and_best_are_kept_across_restarts(model: glow_jax.Glow, tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    scores = {0: None, 1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan"), 5: 2.5}
    for step, score in scores.items():
        with CheckpointWriter(tmp_path, keep_best=True) as writer:
            writer.save(step, model, validation_bits_per_dim=score)
    assert whole_steps(tmp_path) == [2, 4, 5]
    assert load_run(tmp_path, "best").step == 2
    assert load_run(tmp_path).step == 5


def test_a_score_of_a_step_that_is_there_is_added_once(model: glow_jax.Glow, run: Path) -> None:
    for score in (2.5, 2.5000001):  # the same state, evaluated in batches of another size
        with CheckpointWriter(run, keep_best=True) as writer:
            writer.save(5, model, validation_bits_per_dim=score)
        assert identical(load_run(run, "best").model, model)
    saved = json.loads((run / "checkpoints" / "5" / "validation.json").read_text())
    assert saved == {"bits_per_dim": 2.5}


def test_optimizer_state_round_trip(model: glow_jax.Glow, tmp_path: Path) -> None:
    optimizer = optax.adamax(1e-3)
    params = nnx.state(model, nnx.Param)
    state = optax.tree.set(optimizer.init(params), count=jnp.asarray(17))
    save_weights(tmp_path / "run", CONFIG, model, optimizer_state=state)
    target = jax.eval_shape(optimizer.init, params)
    assert identical(load_optimizer_state(tmp_path / "run", target), state)
    other = jax.eval_shape(optax.sgd(1.0, momentum=0.9).init, params)
    with pytest.raises(glow_jax.GlowError, match="another optimizer"):
        load_optimizer_state(tmp_path / "run", other)


def test_missing_optimizer_state_is_named(model: glow_jax.Glow, run: Path) -> None:
    with pytest.raises(glow_jax.GlowError, match="without an optimizer"):
        load_optimizer_state(run, {})


def every_file(run: Path) -> list[Path]:
    return [path for path in (run / "checkpoints" / "5").rglob("*") if path.is_file()]


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove])
def test_any_damaged_file_is_named(damage, run: Path) -> None:
    files = [path for path in every_file(run) if path.name != "sha256.json"]
    for path in [path for path in files if path.stat().st_size]:
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(glow_jax.GlowError) as error:
            load(run)
        assert str(path) in str(error.value)
        path.write_bytes(whole)
    load(run)


def test_damage_names_the_other_steps_and_is_never_passed_over(
    model: glow_jax.Glow, run: Path
) -> None:
    with CheckpointWriter(run, keep_best=False) as writer:
        writer.save(6, model)
    damage_flip(next((run / "checkpoints" / "6" / "model").rglob("_METADATA")))
    with pytest.raises(glow_jax.GlowError, match="--step 5"):
        load(run)
    assert load_run(run, 5).step == 5


def test_unfinished_save_does_not_count(model: glow_jax.Glow, run: Path) -> None:
    with CheckpointWriter(run, keep_best=False) as writer:
        writer.save(6, model)
    (run / "checkpoints" / "6" / "sha256.json").unlink()
    assert load_run(run).step == 5
    with CheckpointWriter(run, keep_best=False) as writer:
        writer.save(6, model)
    assert load_run(run).step == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be an object"),
        ('{"model": {"depth": 3}}', "'depth'"),
        ('{"model": {"K": "two"}}', "'two'"),
        ('{"model": {"flow_coupling": "cubic"}}', "'cubic'"),
    ],
)
def test_bad_hparams_are_named(run: Path, content: str, words: str) -> None:
    (run / "hparams.json").write_text(content)
    with pytest.raises(glow_jax.GlowError, match=words):
        load(run)


def test_a_folder_of_a_later_version_is_refused(run: Path) -> None:
    path = run / "hparams.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "version": 7, "what_only_version_7_has": 1}))
    with pytest.raises(glow_jax.GlowError) as error:
        load(run)
    assert str(error.value) == (
        f"{path} has version 7; this glow_jax reads versions up to 6: install a later one."
    )
    # Version 1 did not write its number down.
    path.write_text(json.dumps({name: saved[name] for name in saved if name != "version"}))
    assert load_run(run).config == CONFIG


def test_hparams_of_another_model_are_named(run: Path) -> None:
    other = dataclasses.replace(CONFIG.model, hidden_channels=6)
    write_config(run, dataclasses.replace(CONFIG, model=other))
    with pytest.raises(glow_jax.GlowError, match=r"does not match.*\(2, 4\).*\(2, 6\)"):
        load(run)


def test_folders_without_a_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(glow_jax.GlowError, match="no run folder"):
        load(tmp_path)
    write_config(tmp_path, CONFIG)
    with pytest.raises(glow_jax.GlowError, match="has no checkpoint"):
        load(tmp_path)
    assert json.loads((tmp_path / "hparams.json").read_text())["model"]["K"] == 2


def test_save_weights_refuses_an_occupied_folder(model: glow_jax.Glow, run: Path) -> None:
    with pytest.raises(glow_jax.GlowError, match="not empty"):
        save_weights(run, CONFIG, model)
