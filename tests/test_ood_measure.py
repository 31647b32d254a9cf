"""Measuring: resuming, origins, devices, and images of other data sets."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ood_runs import GREY, untrained
from PIL import Image

from glow_jax.cli.ood import _carry_out
from glow_jax.config import Config, DataConfig, ModelConfig
from glow_jax.data import Dataset, InMemory, load_dataset
from glow_jax.data.batching import Batch
from glow_jax.devices import Devices
from glow_jax.errors import GlowError
from glow_jax.evaluation.likelihood import likelihood
from glow_jax.ood import store
from glow_jax.ood.comparison import Job
from glow_jax.ood.dimension import lid_meter
from glow_jax.ood.images import Images, load_images, reference_images
from glow_jax.ood.measure import (
    Meter,
    codec_meter,
    ensemble_meter,
    gradient_meter,
    layer_norm_meter,
    likelihood_meter,
    replicated_model,
)
from glow_jax.ood.store import measure_all
from glow_jax.runs.measured import read_columns

REPOSITORY = Path(__file__).resolve().parents[1]


def make_split(count: int, shape: tuple[int, int, int] = (8, 8, 1), seed: int = 0) -> InMemory:
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return InMemory(images, np.empty((count, 0), np.int32))


class Counting:
    """Measures the place and the mean of each image; breaks off when told to."""

    def __init__(self, stop_after: int = 10**9):
        self.images: list[int] = []
        self.stop_after = stop_after

    def __call__(self, batch: Batch) -> Mapping[str, np.ndarray]:
        if len(self.images) >= self.stop_after:
            raise KeyboardInterrupt
        self.images += batch.indices.tolist()
        means = batch.images.mean(axis=(1, 2, 3))
        return {"place": batch.indices, "moments": np.stack([means, means**2], axis=1)}


def test_what_was_interrupted_goes_on_where_it_stopped(tmp_path: Path) -> None:
    split, seen = make_split(23), []
    whole = measure_all(
        split, Counting(), path=tmp_path / "whole.npz", origin={"a": 1}, batch_size=4
    )
    path, first, rest = tmp_path / "x" / "parts.npz", Counting(stop_after=8), Counting()
    with pytest.raises(KeyboardInterrupt):
        measure_all(split, first, path=path, origin={"a": 1}, batch_size=4)
    assert first.images == list(range(8))
    # Another size of batches makes no difference.
    parts = measure_all(split, rest, path=path, origin={"a": 1}, batch_size=5, progress=seen.append)
    assert rest.images == list(range(8, 23))
    assert seen == [8, 5, 5, 5]
    for name, values in whole.items():
        np.testing.assert_array_equal(parts[name], values)
    nothing = Counting()
    measure_all(split, nothing, path=path, origin={"a": 1}, batch_size=4)
    assert nothing.images == []


def test_a_kill_loses_what_was_not_saved_yet(tmp_path: Path) -> None:
    program = (
        "import os, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from glow_jax.ood import store\n"
        "from test_ood_measure import Counting, make_split\n"
        "store._SECONDS_BETWEEN_SAVES = -1\n"
        "class Kill(Counting):\n"
        "    def __call__(self, batch):\n"
        "        if len(self.images) == 12: os._exit(9)\n"
        "        return super().__call__(batch)\n"
        "store.measure_all(make_split(23), Kill(), path=Path(sys.argv[1]), origin={'a': 1},\n"
        "                  batch_size=4)\n"
    )
    path = tmp_path / "killed.npz"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=REPOSITORY / "tests",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 9, done.stderr
    rest = Counting()
    found = measure_all(make_split(23), rest, path=path, origin={"a": 1}, batch_size=4)
    assert rest.images == list(range(12, 23))
    np.testing.assert_array_equal(found["place"], np.arange(23))


def test_what_needs_no_device_goes_on_beside_and_is_kept_when_interrupted(tmp_path: Path) -> None:
    images = Images("some", "test", make_split(1000))
    begun, pressed = threading.Event(), threading.Event()

    def beside(batch: Batch, _: int) -> Mapping[str, np.ndarray]:
        begun.set()
        assert pressed.wait(60)
        time.sleep(0.1)  # all batches would take ten seconds
        return {"beside": batch.indices}

    def on_device(batch: Batch, _: int) -> Mapping[str, np.ndarray]:
        if batch.indices[0] == 20:
            assert begun.wait(60)
            pressed.set()
            raise KeyboardInterrupt
        return {"device": batch.indices}

    jobs = [
        Job(images, Meter("beside", ("beside",), {}, beside, on_processor=True)),
        Job(images, Meter("device", ("device",), {}, on_device)),
    ]
    with pytest.raises(KeyboardInterrupt):
        _carry_out(jobs, tmp_path, 10)
    origin = {"images_sha256": images.fingerprint}
    folder = tmp_path / "ood" / "measured" / "some-test"
    kept = [read_columns(folder / f"{name}.npz", origin)[name] for name in ("beside", "device")]
    assert 10 <= len(kept[0]) < 1000  # what was begun was ended
    np.testing.assert_array_equal(kept[1], np.arange(20))


def test_an_error_beside_ends_the_command(tmp_path: Path) -> None:
    images = Images("some", "test", make_split(4))

    def beside(_: Batch, __: int) -> Mapping[str, np.ndarray]:
        raise GlowError("it does not fit")

    def on_device(batch: Batch, _: int) -> Mapping[str, np.ndarray]:
        return {"device": batch.indices}

    jobs = [
        Job(images, Meter("beside", ("beside",), {}, beside, on_processor=True)),
        Job(images, Meter("device", ("device",), {}, on_device)),
    ]
    with pytest.raises(GlowError, match="it does not fit"):
        _carry_out(jobs, tmp_path, 4)


def test_numbers_of_another_origin_never_mix(tmp_path: Path) -> None:
    path, again = tmp_path / "n.npz", Counting()
    measure_all(make_split(9), Counting(), path=path, origin={"step": 1}, batch_size=4)
    assert read_columns(path, {"step": 2}) == {}
    measure_all(make_split(9), again, path=path, origin={"step": 2}, batch_size=4)
    assert again.images == list(range(9))
    assert set(read_columns(path, {"step": 2})) == {"place", "moments"}
    assert read_columns(path, {"step": 1}) == {}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"no archive"])
def test_a_damaged_file_is_measured_anew(content: bytes, tmp_path: Path) -> None:
    path, again = tmp_path / "n.npz", Counting()
    path.write_bytes(content)
    found = measure_all(make_split(6), again, path=path, origin={}, batch_size=4)
    assert again.images == list(range(6))
    np.testing.assert_array_equal(read_columns(path, {})["place"], found["place"])


def test_work_is_saved_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, now = [], [0.0]
    monkeypatch.setattr(
        store, "write_columns", lambda path, origin, columns: written.append(len(columns["place"]))
    )
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])

    def measure(batch: Batch) -> Mapping[str, np.ndarray]:
        now[0] += 6  # seconds
        return {"place": batch.indices}

    measure_all(make_split(10), measure, path=tmp_path / "n.npz", origin={}, batch_size=2)
    assert written == [4, 8, 10]


def test_every_setting_is_part_of_the_origin() -> None:
    devices = Devices(1)

    def origin(seed: int = 0, n_bits: int = 4, **changes: Any) -> Mapping:
        model = untrained(ModelConfig(**{**vars(GREY), "n_bits": n_bits}), seed)
        settings = {"step": 0, "dtype": "float32", "precision": "highest", **changes}
        return replicated_model(devices, model, **settings).origin

    base = origin()
    assert origin() == base
    others = [origin(seed=1), origin(n_bits=5), origin(step=1), origin(dtype="bfloat16")]
    for other in (*others, origin(precision="high")):
        assert other != base
    assert codec_meter("png", 8).origin != codec_meter("png", 4).origin
    settings = {"step": 0, "dtype": "float32", "precision": "highest"}
    flow, other = (replicated_model(devices, untrained(seed=seed), **settings) for seed in (0, 1))
    assert layer_norm_meter(flow).origin == base != layer_norm_meter(other).origin
    assert ensemble_meter([flow]).origin != ensemble_meter([other]).origin
    assert ensemble_meter([flow]).origin != ensemble_meter([flow, other]).origin
    trainings = [Images("a", "training", make_split(9, seed=seed)) for seed in (0, 1)]
    lid = lid_meter(flow, trainings[0], 5).origin
    assert lid == lid_meter(flow, trainings[0], 7).origin
    assert lid != lid_meter(other, trainings[0], 5).origin
    assert lid != lid_meter(flow, trainings[1], 5).origin
    one, changed = make_split(70), make_split(70)
    changed.images[33, 0, 0, 0] ^= 1
    assert Images("a", "test", one).fingerprint == Images("b", "test", make_split(70)).fingerprint
    assert Images("a", "test", one).fingerprint != Images("a", "test", changed).fingerprint
    first = Images("a", "test", one[np.arange(69)])
    assert first.fingerprint != Images("a", "test", one).fingerprint


@pytest.mark.skipif(jax.local_device_count() < 8, reason="needs 8 virtual devices")
@pytest.mark.slow
def test_numbers_depend_on_neither_devices_nor_batches(tmp_path: Path, randomise) -> None:
    model = randomise(untrained(), seed=1, scale=0.1)
    images = Images("noise", "test", make_split(21))
    found = []
    for number, (devices, batch_size) in enumerate([(1, 21), (1, 4), (4, 6), (8, 100)]):
        flow = replicated_model(
            Devices(devices), model, step=0, dtype="float32", precision="highest"
        )
        columns = {}
        for meter in (likelihood_meter(flow), gradient_meter(flow)):
            job = Job(images, meter)
            columns |= job.carry_out(tmp_path / str(number), batch_size=batch_size)
        found.append(columns)
    for other in found[1:]:
        for name, values in found[0].items():
            assert len(values) == 21
            np.testing.assert_allclose(other[name], values, rtol=2e-5, atol=1e-5)
    # And they are those of eval.py.
    expected = likelihood(model, images.split, Devices(1), batch_size=7)
    np.testing.assert_allclose(found[0]["bits_per_dim"], expected.bits_per_dim, atol=1e-5)


# Images


def config_of(shape: tuple[int, int, int], dataset: str) -> Config:
    model = ModelConfig(K=1, L=1, image_shape=shape)
    return Config(model=model, data=DataConfig(dataset=dataset, image_size=shape[0]))


def load(config: Config, name: str) -> Images:
    return load_images(config, name, dataroot="nowhere", download=False)


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, allow_pickle=False, **arrays)
    return str(path)


def test_smaller_pictures_are_framed_where_the_run_s_own_are(tmp_path: Path) -> None:
    images = make_split(5, (28, 28, 1)).images
    name = save(tmp_path / "some.npz", images=images[..., 0])
    found = load(config_of((32, 32, 1), "fashion_mnist"), name)
    assert (found.name, found.part, len(found.split)) == ("some", "test", 5)
    assert isinstance(found.split, InMemory)
    np.testing.assert_array_equal(
        found.split.images, np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    )
    as_is = load(config_of((28, 28, 1), "fashion_mnist"), name)
    assert isinstance(as_is.split, InMemory)
    np.testing.assert_array_equal(as_is.split.images, images)
    with pytest.raises(
        GlowError, match="Data set some does not fit the model: a picture of 28 x 28"
    ):
        load(config_of((32, 32, 1), "own.npz"), name)


def test_larger_pictures_are_resized_as_ever(tmp_path: Path) -> None:
    images = make_split(3, (16, 16, 3)).images
    found = load(config_of((8, 8, 3), "cifar10"), save(tmp_path / "large.npz", images=images))
    assert isinstance(found.split, InMemory)
    for image, small in zip(images, found.split.images, strict=True):
        expected = Image.fromarray(image).resize((8, 8), Image.Resampling.BOX)
        np.testing.assert_array_equal(small, np.asarray(expected))


def test_embedded_digits_fit_a_larger_model() -> None:
    found = load(config_of((32, 32, 1), "fashion_mnist"), "digits")
    assert found.split.image_shape == (32, 32, 1)
    assert len(found.split) == 360


def test_test_images_are_taken_where_a_file_names_them(tmp_path: Path) -> None:
    images = make_split(12).images
    name = save(tmp_path / "two.npz", images=images[:8], test_images=images[8:])
    assert len(load(config_of((8, 8, 1), "digits"), name).split) == 4


def test_images_that_do_not_fit(tmp_path: Path) -> None:
    colours = save(tmp_path / "colours.npz", images=make_split(3, (8, 8, 3)).images)
    with pytest.raises(
        GlowError, match=r"takes images of \(8, 8, 1\); those of colours are \(8, 8, 3\)"
    ):
        load(config_of((8, 8, 1), "digits"), colours)
    with pytest.raises(GlowError, match="There is no file"):
        load(config_of((8, 8, 1), "digits"), str(tmp_path / "absent.npz"))
    with pytest.raises(GlowError, match="Data set 'minst' is not available; the nearest is mnist"):
        load(config_of((32, 32, 1), "fashion_mnist"), "minst")


def test_reference_images_are_the_run_s_own_training_and_validation_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digits = load_dataset(DataConfig(dataset="digits"))
    training, known = reference_images(digits, 0.1)
    assert (training.part, len(training.split)) == ("training", 1293)
    assert (known.part, len(known.split)) == ("validation", 144)
    training, known = reference_images(digits, 0.0)
    assert known is training
    monkeypatch.setattr("glow_jax.ood.images._REFERENCE_IMAGES", 50)
    numbered = make_split(1000)
    some, _ = reference_images(Dataset("n", 0, numbered, numbered), 0.0)
    assert isinstance(some.split, InMemory)
    where = [
        int(np.flatnonzero((numbered.images == i).all((1, 2, 3)))[0]) for i in some.split.images
    ]
    assert len(set(where)) == 50
    assert 300 < np.mean(where) < 700
