"""The table, names, arrays, what is kept in memory, and what is streamed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import glow_jax.data as data
from glow_jax.catalogue import CATALOGUE, find, sizes
from glow_jax.config import DataConfig
from glow_jax.data import cache
from glow_jax.data.augmentation import augment
from glow_jax.data.batch_order import InOrder, Shuffled
from glow_jax.data.batching import batches_in_order, random_crops, training_batches
from glow_jax.data.dataset import InMemory, hold_out
from glow_jax.data.pictures import fit
from glow_jax.data.streaming import Streamed
from glow_jax.errors import GlowError


def make_split(count: int = 50, size: int = 8, crop: int = 0) -> InMemory:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return InMemory(images, rng.integers(0, 5, count).astype(np.int32), crop)


# The table


def test_digits_and_letters_are_never_mirrored():
    for name in ("digits", "mnist", "svhn_cropped", "fashion_mnist"):
        assert CATALOGUE[name].shifts
        assert not CATALOGUE[name].flips
    assert CATALOGUE["cifar10"].flips


def test_find_knows_aliases_and_configurations():
    assert find("svhn") is CATALOGUE["svhn_cropped"]
    row = find("lsun/church_outdoor")
    assert row is not None
    assert (row.builder, row.random_crop_of) == ("lsun/church_outdoor", 96)
    assert find("nothing") is None


@pytest.mark.parametrize(
    ("name", "image_size", "expected"),
    [
        ("cifar10", 0, (32, 0)),
        ("cifar10", 16, (16, 0)),
        ("mnist", 0, (28, 0)),
        ("mnist", 32, (32, 0)),
        ("celeb_a", 0, (64, 0)),
        ("celeb_a", 160, (160, 0)),
        ("lsun", 0, (96, 64)),
        ("lsun", 32, (96, 32)),
        ("downsampled_imagenet", 64, (64, 0)),
    ],
)
def test_sizes(name: str, image_size: int, expected: tuple[int, int]):
    assert sizes(CATALOGUE[name], image_size, name) == expected


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        ("cifar10", 64, "32 x 32, smaller than image_size 64"),
        ("lsun", 128, "96 x 96, smaller than image_size 128"),
        ("downsampled_imagenet", 0, "give --image_size"),
    ],
)
def test_sizes_that_cannot_be(name: str, image_size: int, message: str):
    with pytest.raises(GlowError, match=message):
        sizes(CATALOGUE[name], image_size, name)


# Names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cifr10", "cifar10"), ("fashionmnist", "fashion_mnist"), ("imagenett", "imagenette")],
)
def test_unknown_name_gives_the_nearest(name: str, nearest: str):
    with pytest.raises(GlowError, match=f"the nearest is {nearest}"):
        data.load_dataset(DataConfig(dataset=name))


def test_register(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "_REGISTERED", dict(data._REGISTERED))
    split = make_split(60)

    def load(config: DataConfig) -> data.Dataset:
        return data.from_arrays("flowers", split.images, split.labels, flips=True)

    data.register("flowers", load)
    dataset = data.load_dataset(DataConfig(dataset="flowers"))
    assert (dataset.classes, len(dataset.train), len(dataset.test)) == (5, 54, 6)
    assert dataset.flips
    assert not dataset.shifts


# Arrays


def test_npz(tmp_path: Path):
    split = make_split(20)
    path = tmp_path / "pictures.npz"
    np.savez(path, images=split.images[..., 0], labels=split.labels)
    dataset = data.load_dataset(DataConfig(dataset=str(path)))
    assert (dataset.image_shape, dataset.classes, len(dataset.test)) == ((8, 8, 1), 5, 2)

    np.savez(path, images=split.images, test_images=split.images[:3])
    dataset = data.load_dataset(DataConfig(dataset=str(path)))
    assert (dataset.classes, dataset.multi_hot, len(dataset.test)) == (0, False, 3)
    batch = next(batches_in_order(dataset.test, batch_size=4, classes=dataset.classes))
    assert batch.labels.shape == (3, 0)

    with pytest.raises(GlowError, match="not of image_size 16"):
        data.load_dataset(DataConfig(dataset=str(path), image_size=16))
    with pytest.raises(GlowError, match="above memory_limit"):
        data.load_dataset(DataConfig(dataset=str(path), memory_limit=1e-6))


def test_npz_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "pictures.npz"
    with pytest.raises(GlowError, match="There is no file"):
        data.load_dataset(DataConfig(dataset=str(path)))
    np.savez(path, images=np.zeros((4, 8, 8, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(GlowError, match="cannot be read"):
        data.load_dataset(DataConfig(dataset=str(path)))
    np.savez(path, pictures=np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(GlowError, match=r"holds pictures; it must hold an array 'images'"):
        data.load_dataset(DataConfig(dataset=str(path)))
    np.savez(path, images=np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(GlowError, match="must be uint8"):
        data.load_dataset(DataConfig(dataset=str(path)))


# One picture


def test_fit_cuts_the_middle_and_averages():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:4] = 100
    pixels[:, 4:6] = 200
    fitted = fit(Image.fromarray(pixels), 2)
    np.testing.assert_array_equal(fitted[..., 0], [[100, 200], [100, 200]])


def test_fit_pads_where_the_table_says_so():
    pixels = np.full((28, 28), 7, np.uint8)
    fitted = fit(Image.fromarray(pixels), 32, pad=True)
    assert fitted.shape == (32, 32, 1)
    np.testing.assert_array_equal(fitted[2:30, 2:30, 0], pixels)
    assert fitted.sum() == pixels.sum()
    with pytest.raises(GlowError, match="28 x 28 is smaller than image_size 32"):
        fit(Image.fromarray(pixels), 32)


def test_fit_cuts_the_face():
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[35:183, 15:163] = 255
    assert fit(Image.fromarray(pixels), 74, centre=148).min() == 255
    # A size beyond the square takes a larger one, and never enlarges.
    assert fit(Image.fromarray(pixels), 178, centre=148).shape == (178, 178, 3)


# Plans, crops, streams


def test_plans_give_every_image_once():
    plan = Shuffled(20, 6, seed=1)
    epoch = np.concatenate([plan[step] for step in range(3)])
    assert len(set(epoch)) == 18
    assert not np.array_equal(plan[0], plan[3])
    in_order = InOrder(20, 6)
    np.testing.assert_array_equal(
        np.concatenate(list(map(in_order.__getitem__, range(4)))), range(20)
    )


def test_random_crops_are_functions_of_draw_and_index():
    images = make_split(6, size=12).images
    indices = np.arange(6)
    crops = random_crops(images, 8, indices, (1, 5))
    np.testing.assert_array_equal(crops[3:], random_crops(images[3:], 8, indices[3:], (1, 5)))
    assert not np.array_equal(crops, random_crops(images, 8, indices, (1, 6)))
    # Every place is reached, and none lies outside.
    flat = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1).repeat(400, 0)
    corners = random_crops(flat, 2, np.arange(400), ())[:, 0, 0, 0]
    assert set(corners) == {0, 1, 3, 4}


@pytest.mark.parametrize("n_workers", [0, 2])
def test_streamed_examples_are_those_in_memory(n_workers: int):
    split = make_split(50, size=12, crop=8)
    kept, _ = hold_out(split, 0.2)
    streamed, held_out = hold_out(Streamed(split, n_workers, crop=8), 0.2)
    assert (len(streamed), len(held_out)) == (40, 10)
    assert streamed.image_shape == kept.image_shape == (8, 8, 3)
    # From the middle of one epoch into the next: a step number is all that a resume needs.
    wanted: dict[str, Any] = {"batch_size": 16, "classes": 5, "seed": 3, "first_step": 3}
    batches = training_batches(streamed, **wanted)
    for step, (one, other) in enumerate(
        zip(training_batches(kept, **wanted), batches, strict=False)
    ):
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        if step == 4:
            break
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_streamed_in_order():
    split = make_split(20)
    parts = list(batches_in_order(Streamed(split, 0), batch_size=8, classes=5))
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), split.images)
    assert [len(part.images) for part in parts] == [8, 8, 4]


# Memory


def test_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    split = make_split(600)
    config = DataConfig(dataroot=str(tmp_path))
    first = cache.load_splits(config, {"train": split}, "cut", "origin")["train"]
    np.testing.assert_array_equal(first[np.arange(600)].images, split.images)

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_decode", fail)
        again = cache.load_splits(config, {"train": split}, "cut", "origin")["train"]
        np.testing.assert_array_equal(again[np.arange(600)].images, split.images)
        with pytest.raises(AssertionError, match="decoded again"):
            cache.load_splits(config, {"train": split}, "cut", "other origin")
    # Half a file is decoded anew, and whole afterwards.
    kept = tmp_path / "decoded" / "cut" / "train" / "images.npy"
    kept.write_bytes(kept.read_bytes()[:1000])
    cache.load_splits(config, {"train": split}, "cut", "origin")
    np.testing.assert_array_equal(np.load(kept), split.images)
    assert [path.name for path in kept.parent.parent.iterdir()] == ["train"]


def test_a_full_disk_does_not_stop_what_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(UserWarning, match="cannot be kept .*No space left"):
        loaded = cache.load_splits(
            DataConfig(dataroot=str(tmp_path)), {"train": make_split()}, "cut", "origin"
        )
    assert isinstance(loaded["train"], InMemory)
    assert not list((tmp_path / "decoded" / "cut").iterdir())


def test_what_exceeds_the_limit_is_streamed(tmp_path: Path):
    config = DataConfig(dataroot=str(tmp_path), memory_limit=25 * 8 * 8 * 3 / 1e9)
    loaded = cache.load_splits(
        config, {"train": make_split(50), "test": make_split(20)}, "cut", "origin"
    )
    assert isinstance(loaded["test"], InMemory)
    assert isinstance(loaded["train"], Streamed)


# Augmentation, against the PyTorch code's distribution


def test_shifts_have_the_published_distribution():
    images = jnp.zeros((4000, 32, 32, 1), jnp.uint8).at[:, 16, 16].set(1)
    keys = jax.random.split(jax.random.key(0), len(images))
    moved = np.asarray(augment(images, keys, flips=False))
    assert moved.sum() == len(images)
    down, right = np.argwhere(moved[..., 0])[:, 1:].T - 16
    for shift in (down, right):
        counts = {int(value): int((shift == value).sum()) for value in range(-3, 4)}
        assert sum(counts.values()) == len(images)
        # A uniform draw in [-3.2, 3.2], rounded: whole pixels weigh 1 / 6.4, the ends 0.7 / 6.4.
        for value, count in counts.items():
            share = (0.7 if abs(value) == 3 else 1) / 6.4
            assert abs(count / len(images) - share) < 4 * np.sqrt(share / len(images))
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.06


def test_without_shifts_and_flips_nothing_changes():
    images = jnp.asarray(make_split(10).images)
    keys = jax.random.split(jax.random.key(0), len(images))
    same = augment(images, keys, flips=False, shifts=False)
    np.testing.assert_array_equal(same, images)
    flipped = np.asarray(augment(images, keys, flips=True, shifts=False))
    for image, other in zip(np.asarray(images), flipped, strict=True):
        assert np.array_equal(image, other) or np.array_equal(image[:, ::-1], other)


# Imports


def test_the_package_imports_no_data_library():
    libraries = ("tensorflow", "tensorflow_datasets", "grain", "sklearn")
    program = (
        "import sys, glow_jax, glow_jax.data, glow_jax.config.presets; "
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
