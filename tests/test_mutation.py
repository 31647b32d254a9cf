"""The noise that a likelihood ratio's background model is trained on."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from training_runs import TINY, train

import glow_jax
from glow_jax.config import Config, DataConfig, ModelConfig
from glow_jax.data import InMemory, load_dataset
from glow_jax.data.augmentation import mutate
from glow_jax.errors import GlowError
from glow_jax.pixels import example_keys, to_pixels
from glow_jax.runs import load_run
from glow_jax.training.step import prepare_images

MUTATED = [*TINY, "--mutation_rate", "0.3"]


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_values_mutate_independently_to_uniform_draws(rate: float) -> None:
    images = jnp.full((400, 8, 8, 3), 77, jnp.uint8)
    mutated = np.asarray(mutate(images, jax.random.split(jax.random.key(1), 400), rate))
    assert mutated.dtype == np.uint8
    changed = mutated != 77
    # One draw in 256 is the old value.
    chance = rate * 255 / 256
    assert scipy.stats.binomtest(int(changed.sum()), changed.size, chance).pvalue > 0.001
    in_image = changed.reshape(400, -1).sum(axis=1)
    assert in_image.var() == pytest.approx(192 * chance * (1 - chance), rel=0.25)
    red, green = changed[..., 0].ravel(), changed[..., 1].ravel()
    assert abs(np.corrcoef(red, green)[0, 1]) < 5 / np.sqrt(red.size)
    counts = np.bincount(mutated[changed], minlength=256)
    assert counts[77] == 0
    assert scipy.stats.chisquare(np.delete(counts, 77)).pvalue > 0.001


def test_an_image_mutates_alike_in_any_batch() -> None:
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)), jnp.uint8)
    keys = example_keys(1, 5, np.arange(6))
    together = np.asarray(mutate(images, keys, 0.3))
    np.testing.assert_array_equal(mutate(images[4:], keys[4:], 0.3), together[4:])
    assert not np.array_equal(together, mutate(images, example_keys(1, 6, np.arange(6)), 0.3))


def test_mutation_comes_on_top_of_the_rest_and_changes_nothing_at_rate_0() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)

    def prepared(**data) -> np.ndarray:
        config = Config(model=ModelConfig(K=1, L=1), data=DataConfig(**data))
        x = prepare_images(images, 1, 0, np.arange(9), config, flips=False, shifts=True)
        return np.asarray(x)

    as_ever, mutated = prepared(), prepared(mutation_rate=0.2)
    share = np.mean(as_ever != mutated)
    assert scipy.stats.binomtest(round(share * mutated.size), mutated.size, 0.2).pvalue > 0.001
    np.testing.assert_array_equal(prepared(augment=False, mutation_rate=0), prepared(augment=False))
    # Of the two kinds of noise neither takes the other's draws.
    plain, alone = prepared(augment=False), prepared(augment=False, mutation_rate=0.2)
    assert 0.1 < np.mean(plain != alone) < 0.3


def test_each_image_and_each_step_has_noise_of_its_own() -> None:
    images = np.full((2, 8, 8, 1), 77, np.uint8)
    config = Config(model=ModelConfig(K=1, L=1), data=DataConfig(mutation_rate=0.3, augment=False))

    def mutated(draw: int) -> np.ndarray:
        x = prepare_images(images, 1, draw, np.arange(2), config, flips=False, shifts=False)
        return np.asarray(to_pixels(x)) != 77

    first, second = mutated(0), mutated(1)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(first, mutated(0))


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_rates_that_are_none(rate: float) -> None:
    with pytest.raises(GlowError, match=f"mutation_rate is {rate}; it must be from 0 to 1"):
        DataConfig(mutation_rate=rate)


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "background"
    with pytest.MonkeyPatch.context() as patch:
        train(patch, *MUTATED, "--output_dir", folder, "--epochs", 2)
    return folder


@pytest.mark.slow
def test_a_resumed_run_mutates_as_one_that_never_stopped(
    background: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(background, again)
    train(monkeypatch, "--output_dir", again, "--resume", "--step", 20)
    one, two = load_run(background), load_run(again)
    for a, b in zip(jax.tree.leaves(one.model), jax.tree.leaves(two.model), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_what_is_evaluated_is_not_mutated(background: Path) -> None:
    model = glow_jax.load(background)
    test = load_dataset(DataConfig(dataset="digits")).test
    assert isinstance(test, InMemory)
    x = glow_jax.dequantize(test.images, example_keys(0, 0, np.arange(len(test))), n_bits=4)
    bits = glow_jax.bits_per_dim(model.log_prob(x), (8, 8, 1), n_bits=4)
    reported = json.loads((background / "metrics.jsonl").read_text().splitlines()[-1])
    assert reported["test_bits_per_dim"] == pytest.approx(float(np.mean(bits)), abs=1e-5)
