"""Data sets that tensorflow-datasets has prepared, read without TensorFlow.

`tests/prepared` holds cifar10 as `test_datasets_preparing.py` prepares it.
"""

import itertools
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photographs import load, sorted_images, squares

from glow_jax.data import InMemory, Streamed
from glow_jax.data.batching import training_batches
from glow_jax.data.sources import tfds
from glow_jax.errors import GlowError

REPOSITORY = Path(__file__).resolve().parents[1]
PREPARED = REPOSITORY / "tests" / "prepared"


@pytest.fixture
def dataroot(tmp_path: Path) -> Path:
    """A folder with cifar10 prepared from forty and twenty squares of two photographs."""
    shutil.copytree(PREPARED, tmp_path / "data")
    return tmp_path / "data"


def test_prepared_images_are_those_of_the_archive(dataroot: Path):
    dataset = load("cifar10", dataroot)
    assert isinstance(dataset.train, InMemory)
    assert (dataset.image_shape, dataset.classes, dataset.flips) == ((32, 32, 3), 10, True)
    archive = squares(60, 32)
    np.testing.assert_array_equal(
        sorted_images(dataset.train), sorted_images(InMemory(archive[:40], np.zeros(40)))
    )
    # The label of the archive's image n is n modulo 10.
    for image, label in zip(dataset.train.images[:5], dataset.train.labels[:5], strict=True):
        (number,) = np.flatnonzero((archive[:40] == image).all(axis=(1, 2, 3)))
        assert label == number % 10


@pytest.mark.slow
def test_streamed_by_other_processes_is_the_same(dataroot: Path):
    kept = load("cifar10", dataroot)
    streamed = load("cifar10", dataroot, memory_limit=0, n_workers=2)
    assert isinstance(streamed.train, Streamed)
    # From the middle of one epoch into the next, and closed while the processes read ahead.
    wanted: dict[str, Any] = {"batch_size": 16, "classes": 10, "seed": 1, "first_step": 1}
    batches = training_batches(streamed.train, **wanted)
    expected = training_batches(kept.train, **wanted)
    for one, other in itertools.islice(zip(expected, batches, strict=True), 4):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    batches.close()


def test_open_files_are_not_pickled(dataroot: Path):
    streamed = load("cifar10", dataroot, memory_limit=0)
    assert isinstance(streamed.train, Streamed)
    pictures = streamed.train.pictures
    before = pictures[np.arange(3)].images
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pictures))[np.arange(3)].images, before)


def test_images_are_resized(dataroot: Path):
    assert load("cifar10", dataroot, image_size=16).image_shape == (16, 16, 3)
    with pytest.raises(GlowError, match="smaller than image_size 64"):
        load("cifar10", dataroot, image_size=64)


def test_damaged_images_are_an_error(dataroot: Path):
    shard = next((dataroot / "cifar10" / "3.0.2").glob("*train.array_record*"))
    content = bytearray(shard.read_bytes())
    content[20_000:21_000] = bytes(1000)
    shard.write_bytes(content)
    with pytest.raises(GlowError, match=r"3\.0\.2 is damaged .*: remove it, and the next run"):
        load("cifar10", dataroot)


def test_damaged_files_are_set_aside_and_prepared_anew(
    dataroot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    place = dataroot / "cifar10" / "3.0.2"
    shard = next(place.glob("*train.array_record*"))
    shard.write_bytes(shard.read_bytes()[:1000])

    def prepare_again(*_: object) -> None:
        shutil.copytree(PREPARED / "cifar10" / "3.0.2", place)

    monkeypatch.setattr(tfds, "prepare_apart", prepare_again)
    assert len(load("cifar10", dataroot).train) == 40
    said = capsys.readouterr().err
    assert re.search(r"note: .*3\.0\.2 is damaged .*: moved to damaged\.3\.0\.2", said)


# In a process of its own, which has imported nothing else


PROGRAM = """
import json, sys

def imported(*names):
    return [name for name in names if name in sys.modules]

import glow_jax, glow_jax.data, glow_jax.config.presets
found = {"by the package": imported("tensorflow", "tensorflow_datasets", "grain", "sklearn")}

import train
from glow_jax.config import DataConfig
from glow_jax.data.batching import training_batches

for memory_limit in (8, 0):
    config = DataConfig(
        dataset="cifar10", dataroot=sys.argv[1], memory_limit=memory_limit, n_workers=0
    )
    split = glow_jax.data.load_dataset(config).train
    next(training_batches(split, batch_size=8, classes=10, seed=1, first_step=0))
found["by reading"] = imported("tensorflow", "tensorflow_datasets", "grain")
print(json.dumps(found))

from glow_jax.data.sources import tfds_prepare
tfds_prepare._answers = lambda address: False
sys.argv[1:] = ["--dataroot", sys.argv[2]]
train.main()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A program that reads cifar10, and then trains where there is neither it nor a network."""
    folder = tmp_path_factory.mktemp("program")
    shutil.copytree(PREPARED, folder / "data")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "data"), str(folder / "empty")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    return done


def test_the_package_imports_no_data_library(program: subprocess.CompletedProcess[str]):
    assert json.loads(program.stdout)["by the package"] == []


def test_reading_imports_no_tensorflow(program: subprocess.CompletedProcess[str]):
    assert json.loads(program.stdout)["by reading"] == ["tensorflow_datasets", "grain"]


def test_without_a_network_train_says_so_within_seconds(
    program: subprocess.CompletedProcess[str],
):
    assert program.returncode == 2
    assert "cannot be reached" in program.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_process_that_trains_has_no_tensorflow(dataroot: Path):
    flags = "--K 1 --L 1 --hidden_channels 8 --epochs 1 --batch_size 8 --n_init_batches 1"
    arguments = [
        *("--dataset", "cifar10", "--dataroot", str(dataroot)),
        *("--output_dir", str(dataroot / "run"), "--eval_batch_size", "20", *flags.split()),
    ]
    program = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "import train\ntrain.main()\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
