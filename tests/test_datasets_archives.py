"""Pictures in archives, and in files of arrays."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_datasets_layouts import SIZE, draw, load, sizes

from glow_jax.config import DataConfig
from glow_jax.data import InMemory, load_dataset
from glow_jax.errors import GlowError


def test_a_zip_is_read_like_its_folder(tmp_path: Path):
    root = tmp_path / "pics"
    for split, count in (("train", 10), ("val", 3)):
        for name in ("ant", "bee"):
            draw(root / split / name, count)
    path = tmp_path / "pics.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in root.rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path))
        archive.writestr("__MACOSX/._x.png", "rubbish")
        archive.writestr("../escape.txt", "rubbish")
    folder = load(root, tmp_path)
    packed = load_dataset(DataConfig(dataset=str(path), image_size=SIZE, dataroot=str(tmp_path)))
    assert sizes(packed) == sizes(folder) == (2, 20, 6)
    for one, other in ((packed.train, folder.train), (packed.test, folder.test)):
        assert isinstance(one, InMemory)
        assert isinstance(other, InMemory)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert packed.fingerprint == folder.fingerprint
    assert not (tmp_path.parent / "escape.txt").exists()
    streamed = load(path, tmp_path, memory_limit=0, n_workers=0)
    np.testing.assert_array_equal(
        streamed.train[np.arange(20)].images, folder.train[np.arange(20)].images
    )


def test_damaged_members_of_a_zip_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, path = draw(tmp_path / "p"), tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
        archive.writestr("lzma.png", bytes(1000), zipfile.ZIP_LZMA)
        archive.writestr("bomb.png", bytes(40_000_000), zipfile.ZIP_DEFLATED)
        place = archive.getinfo("000.png").header_offset + 60
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)
    dataset = load(path, tmp_path, picture_limit=1)
    assert "3 of 12 pictures cannot be read and are skipped" in capsys.readouterr().err
    assert len(dataset.train) + len(dataset.test) == 9
    path.write_bytes(content[:500])
    with pytest.raises(GlowError, match="cannot be read as an archive"):
        load(path, tmp_path)


def test_members_that_expand_as_no_picture_does_are_left_unread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    folder, path = draw(tmp_path / "p"), tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
        with archive.open("x.bmp", "w") as member:
            for _ in range(7):
                member.write(bytes(10_000_000))
    opened, read = zipfile.ZipFile.open, []

    def watched(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> object:
        read.append(info.filename)
        return opened(archive, info)

    monkeypatch.setattr(zipfile.ZipFile, "open", watched)
    assert len(load(path, tmp_path).train) == 9
    assert re.search(r"x\.bmp \([\d,]+ bytes would expand to 0\.07 GB", capsys.readouterr().err)
    assert "000.png" in read
    assert "x.bmp" not in read


def test_folders_of_arrays(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)
    each, whole = tmp_path / "each", tmp_path / "whole"
    whole.mkdir()
    for number, image in enumerate(images):
        place = each / ("ant" if number < 10 else "bee")
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{number:02d}.npy", image)
    dataset = load(each, tmp_path)
    assert sizes(dataset) == (2, 18, 2)
    np.save(whole / "images.npy", images)
    np.save(whole / "labels.npy", np.arange(20, dtype=np.uint8) // 10)
    other = load(whole, tmp_path)
    assert sizes(other) == (2, 18, 2)
    np.testing.assert_array_equal(
        dataset.train[np.arange(18)].images, other.train[np.arange(18)].images
    )
