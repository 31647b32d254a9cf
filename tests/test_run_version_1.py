"""Run folders of before: they load as they did, and training goes on in them as it would have.

`data/run_version_1/run` was trained for an epoch, of 10 steps, by the code that wrote version 1.
`numbers.json` holds what that code computed from it, and what it logged when it went on.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from training_runs import rows_of, state_of

import glow_jax
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import DataConfig
from glow_jax.data import load_dataset
from glow_jax.runs import LoadedRun, load_run, whole_steps
from glow_jax.runs.load import path_name

DATA = Path(__file__).parent / "data" / "run_version_1"
NUMBERS: dict[str, Any] = json.loads((DATA / "numbers.json").read_text())


@pytest.fixture(scope="module")
def old() -> LoadedRun:
    return load_run(DATA / "run")


def bits_of(model: glow_jax.Glow) -> np.ndarray:
    """Bits/dim of the first test images."""
    pixels = load_dataset(DataConfig(dataset="digits")).test[np.arange(16)].images
    return np.asarray(model.bits_per_dim(model.dequantize(pixels, jax.random.key(0))))


def test_model_and_average_give_the_same_likelihoods(old: LoadedRun) -> None:
    assert old.step == 10
    assert old.average is not None
    assert old.average_or_model is old.average
    np.testing.assert_allclose(bits_of(old.model), NUMBERS["model_bits_per_dim"], atol=1e-6)
    np.testing.assert_allclose(bits_of(old.average), NUMBERS["average_bits_per_dim"], atol=1e-6)


def test_it_draws_the_same_samples(old: LoadedRun) -> None:
    x = old.average_or_model.sample(jax.random.key(0), 1, temperature=0.5)
    np.testing.assert_allclose(np.ravel(x), NUMBERS["average_sample"], atol=1e-6)


def test_every_array_of_the_optimizers_state_is_found_under_its_new_name() -> None:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state_of(DATA / "run")[2])
    found = {}
    for path, leaf in leaves:
        name = re.sub(r"splits\.(\d+)\.", r"levels.\1.split.", path_name(path))
        array = np.asarray(leaf, np.float64)
        found[name] = [array.sum(), np.linalg.norm(array)]
    assert found.keys() == NUMBERS["optimizer"].keys()
    for name, expected in NUMBERS["optimizer"].items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, err_msg=name)


@pytest.mark.slow
def test_training_goes_on_as_it_would_have(old: LoadedRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(DATA / "run", folder)
    words = ["--output_dir", folder, "--resume", "--epochs", 2, "--devices", 1]
    config = parse_training([str(word) for word in words])
    glow_jax.train(config, load_dataset(config.data))
    before, after = rows_of(folder)
    assert before["epoch"] == 1
    assert after == pytest.approx(NUMBERS["went_on"], abs=1e-6)

    # Its old step still loads, beside the new one.
    assert whole_steps(folder) == [10, 20]
    again = load_run(folder, 10)
    for one, other in zip(jax.tree.leaves(again.model), jax.tree.leaves(old.model), strict=True):
        np.testing.assert_array_equal(one, other)
    new = load_run(folder)
    assert new.step == 20
    assert new.average is not None
    assert json.loads((folder / "hparams.json").read_text())["version"] == 6
    shapes = [jax.tree.map(np.shape, nnx.state(run.model)) for run in (again, new)]
    assert shapes[0] == shapes[1]
