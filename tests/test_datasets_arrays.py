"""Files of arrays: every kind that NumPy writes, and whatever is damaged or means harm."""

import bz2
import io
import lzma
import os
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glow_jax.config import DataConfig
from glow_jax.data import Dataset, from_arrays, load_dataset
from glow_jax.data.batching import batches_in_order
from glow_jax.data.sources.npy import read_header
from glow_jax.errors import GlowError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
LABELS = np.arange(20) % 10


def load(path: Path, **values: Any) -> Dataset:
    return load_dataset(DataConfig(dataset=str(path), **values))


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def header(shape: str, kind: str = "'|u1'") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def write(path: Path, method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


# What works


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", ">i2", "u4", "i4", "u8", "i8", ">u8"])
def test_labels_of_any_integer_type(tmp_path: Path, kind: str):
    path = tmp_path / "x.npz"
    np.savez(path, images=IMAGES, labels=LABELS.astype(kind))
    dataset = load(path)
    assert dataset.classes == 10
    batch = next(batches_in_order(dataset.train, batch_size=18, classes=10))
    assert batch.labels.sum() == 18


def test_labels_in_a_column_are_class_numbers():
    dataset = from_arrays("keras", IMAGES, LABELS[:, None].astype(np.uint8))
    assert (dataset.classes, dataset.multi_hot) == (10, False)


def test_npy_and_members_without_an_ending_and_order(tmp_path: Path):
    np.save(tmp_path / "x.npy", IMAGES)
    assert len(load(tmp_path / "x.npy").train) == 18
    (tmp_path / "really.npz").write_bytes(npy(IMAGES))
    assert len(load(tmp_path / "really.npz").train) == 18
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("images", npy(np.asfortranarray(IMAGES)))
    found = load(tmp_path / "y.npz").train[np.arange(18)].images
    assert all((image == IMAGES).all(axis=(1, 2, 3)).any() for image in found)


# Labels and shapes that cannot be meant


def test_a_label_that_is_no_class_number(tmp_path: Path):
    path = tmp_path / "x.npz"
    for label in (60_000, 2**63 + 5):
        np.savez(path, images=IMAGES, labels=np.full(20, label, np.uint64))
        advice = ", or give --class_limit 60001, which is 10000 now" if label == 60_000 else ""
        with pytest.raises(GlowError, match=rf"x\.npz: .* a label is {label}: .* anew{advice}\.$"):
            load(path)
    np.savez(path, images=IMAGES, labels=np.full(20, 11_000))
    dataset = load(path, class_limit=11_001)
    assert dataset.classes == 11_001
    batch = next(batches_in_order(dataset.train, batch_size=4, classes=11_001))
    assert batch.labels.shape == (4, 11_001)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first_are_hinted_at(tmp_path: Path, channels: int):
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((10, channels, 16, 32), np.uint8))
    with pytest.raises(GlowError, match=r"channels first: save images\.transpose\(0, 2, 3, 1\)"):
        load(path)


def test_labels_that_belong_to_nothing(tmp_path: Path):
    path = tmp_path / "x.npz"
    np.savez(path, images=IMAGES, test_images=IMAGES, test_labels=LABELS)
    with pytest.raises(GlowError, match="There are test_labels and no labels: give both"):
        load(path)
    np.savez(path, images=IMAGES, labels=LABELS - 1)
    with pytest.raises(GlowError, match="a label is -1; labels are class numbers from 0"):
        load(path)
    np.savez(path, images=IMAGES, labels=np.eye(10, dtype=int)[LABELS] * -1)
    with pytest.raises(GlowError, match="a label is -1; labels are 0 or 1 for each class"):
        load(path)


def test_one_picture_is_not_read_as_many(tmp_path: Path):
    np.save(tmp_path / "one.npy", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(GlowError, match=r"\(8, 8, 3\) is that of one picture, \(H, W, C\)"):
        load(tmp_path / "one.npy")
    np.save(tmp_path / "grey.npy", np.zeros((10, 8, 8), np.uint8))
    assert load(tmp_path / "grey.npy").image_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        (bool, r"save images\.astype\(np\.uint8\) \* 255"),
        (np.int64, r"save images\.astype\(np\.uint8\) if they lie in 0\.\.255"),
        (np.uint16, r"save \(images >> 8\)\.astype\(np\.uint8\) if they lie in 0\.\.65535"),
        (np.float64, r"scale them to 0\.\.255 first, and save images\.astype"),
    ],
)
def test_images_of_another_type_are_told_how_to_become_uint8(tmp_path: Path, kind: Any, hint: str):
    np.save(tmp_path / "x.npy", IMAGES.astype(kind))
    with pytest.raises(GlowError, match=rf"must be uint8 .*, not {np.dtype(kind)}; {hint}"):
        load(tmp_path / "x.npy")


def test_names_of_files_are_taken_as_they_are_meant(tmp_path: Path):
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p" / "x_train.npy", IMAGES)
    np.save(tmp_path / "p" / "y_train.npy", LABELS)
    with pytest.raises(GlowError, match=r"p/x_train\.npy holds several .* images\.npy, alone"):
        load(Path(f"folder:{tmp_path / 'p'}"))
    config = DataConfig(dataset=f"{tmp_path}/p/x_train.npy/")
    assert len(load_dataset(config).train) == 18


def test_the_highest_limit_is_none(tmp_path: Path):
    np.savez(tmp_path / "x.npz", images=IMAGES)
    assert len(load(tmp_path / "x.npz", memory_limit=1e6).train) == 18


# What means harm


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(10000000000000, 8, 8, 1)"), "would expand"),
        (header("(1" + "0" * 30 + ",)"), "which no array has"),
        (header("(-5, 8, 8, 1)"), "which no array has"),
        (header("(True, 8, 8, 1)"), "which no array has"),
        (header("(20, 8, 8, 1)"), "ends after 0 of 1,280 bytes"),
        (header("(20, 0, 8, 1)"), "must have pixels"),
        (header("(20, 8, 8, 1)", "'|O'"), "no numbers"),
        (header("(20, 8, 8, 1)", "[('a', '|u1')]"), "no numbers"),
        (header("(" * 200 + ")" * 200), "header is damaged"),
        (header("(1,", "'\\'"), "header is damaged"),
        (header("__import__('os').system('true')"), "header is damaged"),
        (b"\x93NUMPY\7\0", "version"),
        (b"no array", "does not begin like an array"),
        (b"", "does not begin like an array"),
        (npy(IMAGES) + b"more", "goes on after"),
        (npy(IMAGES.astype(np.float32)), "must be uint8.*scale them"),
        (npy(np.array([{}])), "no numbers"),
    ],
)
def test_a_member_that_is_no_array_of_images(tmp_path: Path, content: bytes, message: str):
    path = write(tmp_path / "x.npz", images=content)
    with pytest.raises(GlowError, match=rf"x\.npz .*{message}"):
        load(path)


def test_labels_that_are_no_numbers_are_refused_unread(tmp_path: Path):
    path = write(tmp_path / "x.npz", images=npy(IMAGES), labels=header("(9,)", "'<U99999999'"))
    with pytest.raises(GlowError, match="labels must be whole numbers"):
        load(path)


def test_a_stored_array_of_any_size_is_refused_by_its_header(tmp_path: Path):
    path = write(tmp_path / "x.npz", zipfile.ZIP_STORED, images=header("(200000000, 8, 8, 1)"))
    with pytest.raises(GlowError, match=r"would expand|above memory_limit"):
        load(path)
    (tmp_path / "x.npy").write_bytes(header("(10000000000000, 8, 8, 1)"))
    with pytest.raises(GlowError, match="above memory_limit 8 GB: raise --memory_limit"):
        load(tmp_path / "x.npy")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bombs_take_no_memory(tmp_path: Path, method: int):
    path, size = tmp_path / "x.npz", 80_000_000 if method == zipfile.ZIP_DEFLATED else 10_000_000
    with (
        zipfile.ZipFile(path, "w", method) as archive,
        archive.open("images.npy", "w") as member,
    ):
        member.write(header(f"({size // 64}, 8, 8, 1)"))
        for _ in range(size // 10_000_000):
            member.write(bytes(10_000_000))
    if method != zipfile.ZIP_DEFLATED:  # one block of it expands to all
        assert path.stat().st_size < 5_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GlowError, match=r"would expand|compressed by method"):
        load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("length", [2**31, 2**32 - 1])
def test_the_length_of_a_header_is_not_believed(length: int):
    asked = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size)
            return super().read(size)

    stream = Stream(b"\x93NUMPY\2\0" + length.to_bytes(4, "little") + b" " * 100_000)
    with pytest.raises(GlowError, match="its header is damaged"):
        read_header(stream)
    assert max(asked) <= 10_004


def test_the_directory_of_an_archive_is_not_believed(tmp_path: Path):
    """A directory that promises few bytes, and says another method than was used."""
    for packed in (bz2.compress(npy(IMAGES)), lzma.compress(npy(IMAGES))):
        path = write(tmp_path / "x.npz", zipfile.ZIP_STORED, images=packed)
        with pytest.raises(GlowError, match="does not begin like an array"):
            load(path)
    content = bytearray(write(tmp_path / "y.npz", images=npy(IMAGES)).read_bytes())
    place = content.rindex(b"PK\1\2")
    content[place + 24 : place + 28] = (300).to_bytes(4, "little")  # the size after expanding
    (tmp_path / "y.npz").write_bytes(content)
    with pytest.raises(GlowError, match="'images': "):
        load(tmp_path / "y.npz")


def test_every_flipped_byte_is_one_sentence_or_no_harm(tmp_path: Path):
    whole = tmp_path / "x.npz"
    np.savez_compressed(whole, images=IMAGES, labels=LABELS.astype(np.uint8))
    content, rng = whole.read_bytes(), np.random.default_rng(0)
    messages = []
    for number in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        whole.write_bytes(damaged[: rng.integers(len(damaged))] if number % 3 == 0 else damaged)
        try:
            found = load(whole)
        except GlowError as error:
            messages.append(str(error))
        else:
            images = found.train[np.arange(len(found.train))].images
            assert all((image == IMAGES).all(axis=(1, 2, 3)).any() for image in images)
    assert len(messages) > 200
    assert all("\n" not in message and len(message) < 600 for message in messages)


def test_an_encrypted_member(tmp_path: Path):
    content = bytearray(write(tmp_path / "x.npz", images=npy(IMAGES)).read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + offset] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(GlowError, match="'images': it is encrypted"):
        load(tmp_path / "x.npz")


def test_pipes_and_devices(tmp_path: Path):
    os.mkfifo(tmp_path / "x.npz")
    (tmp_path / "y.npy").symlink_to("/dev/zero")
    (tmp_path / "z.zip").symlink_to("/dev/zero")
    for name in ("x.npz", "y.npy"):
        with pytest.raises(GlowError, match="is no regular file"):
            load(tmp_path / name)
    with pytest.raises(GlowError, match=r"no regular file|no folder"):
        load(tmp_path / "z.zip", image_size=8)


# Given the obvious way


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pics", r"pics is a folder: give --dataset folder:pics$"),
        ("./pics", r"give --dataset folder:\./pics$"),
        ("run", "run is a run folder"),
        ("x.h5", r"np\.savez"),
        ("x.tar.gz", "unpack it"),
        ("x.png", "is one picture"),
        ("./nowhere", r"There is no folder or file nowhere: give --dataset folder:PATH"),
        ("nowhere/x", "There is no folder or file"),
        ("folder:x.h5", r"x\.h5 is no folder"),
        ("folder:nowhere", "There is no folder nowhere"),
        ("nowhere.npz", r"There is no file nowhere\.npz"),
        ("nowhere.zip", r"There is no file nowhere\.zip: give"),
        ("https://some.where/x.zip", "There is no file https:"),
        ("folder:", "folder: has no path: give --dataset folder:PATH"),
        ("folder:x.npy", r"x\.npy holds arrays: give --dataset x\.npy$"),
        ("CIFAR10", "not available; the nearest is cifar10"),
        ("lsun/../../etc", "Data set|There is no"),
        ("cifar10:3.0.2", "not available; the nearest is cifar10"),
        ("huggingface:mnist", "not available"),
        ("", "not available"),
    ],
)
def test_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "hparams.json").write_text("{}")
    for file in ("x.h5", "x.tar.gz", "x.png", "x.npy"):
        (tmp_path / file).write_text("content")
    with pytest.raises(GlowError, match=message):
        load(Path(name) if name.endswith(".npz") else name, image_size=8)  # pyright: ignore[reportArgumentType]
