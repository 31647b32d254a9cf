"""Folders of pictures."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photographs import squares
from PIL import Image

from glow_jax.config import DataConfig
from glow_jax.data import Streamed, load_dataset
from glow_jax.data.batching import batches_in_order
from glow_jax.data.dataset import Dataset, InMemory
from glow_jax.errors import GlowError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve photographs in two folders, of several formats and sizes."""
    root = tmp_path / "pictures"
    for number, pixels in enumerate(squares(12, 48)):
        folder = root / ("cats" if number % 3 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        suffix = (".jpg", ".png", ".JPEG")[number % 3]
        Image.fromarray(pixels[: 40 + number % 4]).save(folder / f"{number:02d}{suffix}")
    return root


def load(folder: Path, dataroot: Path, **values: object) -> Dataset:
    settings = {"image_size": 32, **values}
    return load_dataset(
        DataConfig(dataset=f"folder:{folder}", dataroot=str(dataroot), **settings)  # pyright: ignore[reportArgumentType]
    )


def test_subfolders_are_classes(pictures: Path, tmp_path: Path):
    dataset = load(pictures, tmp_path)
    assert (dataset.image_shape, dataset.classes) == ((32, 32, 3), 2)
    assert (len(dataset.train), len(dataset.test)) == (11, 1)
    assert not dataset.flips
    assert isinstance(dataset.train, InMemory)
    labels = np.concatenate([dataset.train.labels, dataset.test[np.arange(1)].labels])
    assert np.bincount(labels).tolist() == [8, 4]


def test_train_and_test_subfolders_are_the_splits(pictures: Path, tmp_path: Path):
    for split in ("train", "test"):
        (tmp_path / "both").mkdir(exist_ok=True)
        (tmp_path / "both" / split).symlink_to(pictures)
    dataset = load(tmp_path / "both", tmp_path)
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (12, 12, 2)


def test_pictures_beside_each_other_have_no_labels(pictures: Path, tmp_path: Path):
    dataset = load(pictures / "cats", tmp_path)
    assert (dataset.classes, dataset.multi_hot) == (0, False)


def test_streamed_is_the_same(pictures: Path, tmp_path: Path):
    kept = load(pictures, tmp_path)
    streamed = load(pictures, tmp_path, memory_limit=0, n_workers=0)
    assert isinstance(streamed.train, Streamed)
    wanted: dict[str, Any] = {"batch_size": 4, "classes": 2}
    pairs = zip(
        batches_in_order(kept.train, **wanted),
        batches_in_order(streamed.train, **wanted),
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize("memory_limit", [0, 8])
def test_an_unreadable_picture_is_named_skipped_and_counted(
    pictures: Path, tmp_path: Path, memory_limit: float, capsys: pytest.CaptureFixture[str]
):
    good = sorted((pictures / "cats").iterdir())[0]
    (pictures / "cats" / "cut.jpg").write_bytes(good.read_bytes()[:600])
    (pictures / "cats" / "text.png").write_text("no picture")
    message = (
        r"note: 2 of 14 pictures cannot be read and are skipped: "
        r".*cut\.jpg \(image file is truncated.*\), .*text\.png\n"
    )
    # The second start knows it from its record, and says it again.
    for _ in range(2):
        dataset = load(pictures, tmp_path, memory_limit=memory_limit, n_workers=0)
        assert re.search(message, capsys.readouterr().err)
        assert len(dataset.train) + len(dataset.test) == 12
        assert sum(len(b.images) for b in batches_in_order(dataset.train, batch_size=5, classes=2))


def test_changed_pictures_are_read_again(pictures: Path, tmp_path: Path):
    before = load(pictures, tmp_path)
    path = sorted((pictures / "cats").iterdir())[0]
    Image.new("RGB", (64, 64), (255, 0, 0)).save(path)
    after = load(pictures, tmp_path)
    everything = [
        np.concatenate([part[np.arange(len(part))].images for part in (one.train, one.test)])
        for one in (before, after)
    ]
    differing = (everything[0] != everything[1]).any(axis=(1, 2, 3))
    assert differing.sum() == 1


def test_bad_folders(pictures: Path, tmp_path: Path):
    with pytest.raises(GlowError, match="There is no folder"):
        load(tmp_path / "nothing", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GlowError, match="has no pictures"):
        load(tmp_path / "empty", tmp_path)
    with pytest.raises(GlowError, match="give --image_size"):
        load(pictures, tmp_path, image_size=0)
    with pytest.raises(
        GlowError, match=r"3 of 12 pictures are smaller than image_size 41, .*04\.png"
    ):
        load(pictures, tmp_path, image_size=41)


def test_published_sets_are_taken_from_a_folder_of_their_name(pictures: Path, tmp_path: Path):
    (tmp_path / "lsun" / "bedroom").mkdir(parents=True)
    (tmp_path / "lsun" / "bedroom" / "train").symlink_to(pictures)
    with pytest.raises(GlowError, match="smaller than image_size 96"):
        load_dataset(DataConfig(dataset="lsun", dataroot=str(tmp_path)))
    for path in pictures.glob("*/*"):
        Image.fromarray(squares(1, 110)[0]).save(path)
    dataset = load_dataset(DataConfig(dataset="lsun", dataroot=str(tmp_path)))
    assert dataset.image_shape == (64, 64, 3)
    assert dataset.flips
    batch = next(batches_in_order(dataset.train, batch_size=4, classes=dataset.classes))
    assert batch.images.shape == (4, 64, 64, 3)
