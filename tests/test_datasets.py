"""The catalogue, names, arrays, single pictures, and what is kept in memory."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glow_jax.data as data
from glow_jax.catalogue import CATALOGUE, find, sizes
from glow_jax.config import DataConfig
from glow_jax.data import InMemory, Streamed, cache
from glow_jax.data.batching import batches_in_order
from glow_jax.data.decoding import UnreadableError
from glow_jax.data.pictures import fit, fit_pixels, open_picture
from glow_jax.errors import GlowError


def make_split(count: int = 50, size: int = 8) -> InMemory:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return InMemory(images, rng.integers(0, 5, count).astype(np.int32))


# The catalogue


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
def test_impossible_sizes(name: str, image_size: int, message: str):
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


def test_fit_pads_where_the_catalogue_says_so():
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


def test_fit_pixels_is_fit():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit_pixels(pixels, 4), fit(Image.fromarray(pixels), 4))
    grey = pixels[..., :1]
    np.testing.assert_array_equal(
        fit_pixels(grey, 16, pad=True), fit(Image.fromarray(grey[..., 0]), 16, pad=True)
    )


def test_a_picture_is_opened_from_a_file_or_its_content(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    for source in (path, content):
        np.testing.assert_array_equal(open_picture(source, "RGB"), pixels)
        assert np.asarray(open_picture(source, "L")).shape == (8, 8)
    path.write_bytes(content[:60])
    for source in (path, b"no picture", tmp_path / "absent.png"):
        with pytest.raises(UnreadableError):
            open_picture(source, "RGB")


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    loaded = cache.load_splits(
        DataConfig(dataroot=str(tmp_path)), {"train": make_split()}, "cut", "origin"
    )
    said = capsys.readouterr().err
    assert "note: decoded images cannot be kept in" in said
    assert "(No space left on device)" in said
    assert isinstance(loaded["train"], InMemory)
    assert not list((tmp_path / "decoded" / "cut").iterdir())


def test_what_exceeds_the_limit_is_streamed(tmp_path: Path):
    config = DataConfig(dataroot=str(tmp_path), memory_limit=25 * 8 * 8 * 3 / 1e9)
    loaded = cache.load_splits(
        config, {"train": make_split(50), "test": make_split(20)}, "cut", "origin"
    )
    assert isinstance(loaded["test"], InMemory)
    assert isinstance(loaded["train"], Streamed)
