"""How people lay pictures out in folders, and what lies between them."""

import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glow_jax.config import DataConfig, ModelConfig
from glow_jax.data import Dataset, load_dataset
from glow_jax.data.fit import check_fits
from glow_jax.data.sources.found import find_pictures
from glow_jax.errors import GlowError

SIZE = 8


def draw(folder: Path, count: int = 10, *, grey: bool = False, first: int = 0) -> Path:
    """Small pictures of noise, which differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        shape = (SIZE, SIZE) if grey else (SIZE, SIZE, 3)
        values = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number:03d}.png")
    return folder


def load(path: Path | str, dataroot: Path, **values: object) -> Dataset:
    settings = {"image_size": SIZE, "dataroot": str(dataroot), **values}
    return load_dataset(DataConfig(dataset=f"folder:{path}", **settings))  # pyright: ignore[reportArgumentType]


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    return dataset.classes, len(dataset.train), len(dataset.test)


# Splits and classes


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation", "dev", "Val", "testing"])
def test_train_and_its_test_split(tmp_path: Path, test: str):
    for split, count in (("train", 10), (test, 3)):
        for name in ("ant", "bee"):
            draw(tmp_path / "p" / split / name, count)
    dataset = load(tmp_path / "p", tmp_path)
    assert sizes(dataset) == (2, 20, 6)
    assert dataset.class_names == ("ant", "bee")


def test_train_alone_holds_a_tenth_out(tmp_path: Path):
    for name in ("ant", "bee"):
        draw(tmp_path / "p" / "train" / name)
    assert sizes(load(tmp_path / "p", tmp_path)) == (2, 18, 2)
    draw(tmp_path / "p" / "bus")
    with pytest.raises(GlowError, match=r"has train and also bus: .*folder:.*p/train; .* rename"):
        load(tmp_path / "p", tmp_path)


def test_a_test_split_without_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("ant", "bee"):
        draw(tmp_path / "p" / "train" / name)
    draw(tmp_path / "p" / "test" / "unknown", 4)
    dataset = load(tmp_path / "p", tmp_path)
    assert sizes(dataset) == (2, 20, 4)
    assert "test has no classes: its pictures are read without labels" in capsys.readouterr().err
    model = ModelConfig(L=1, image_shape=(SIZE, SIZE, 3), y_classes=2)
    check_fits(model, dataset)
    labelled = ModelConfig(L=1, image_shape=(SIZE, SIZE, 3), y_classes=2, y_condition=True)
    with pytest.raises(GlowError, match=r"test images of .* have no labels: sort them"):
        check_fits(labelled, dataset)
    # Where the validation split has them, it is the one to test on.
    for name in ("ant", "bee"):
        draw(tmp_path / "p" / "val" / name, 3)
    dataset = load(tmp_path / "p", tmp_path)
    assert sizes(dataset) == (2, 20, 6)
    assert "test (4 pictures) is not read: val is the test split" in capsys.readouterr().err
    check_fits(labelled, dataset)


def test_what_cannot_be_told_is_refused(tmp_path: Path):
    for name in ("ant", "bee"):
        draw(tmp_path / "p" / "train" / name)
    for name in ("ant", "cow"):
        draw(tmp_path / "p" / "test" / name)
    with pytest.raises(GlowError, match="has cow, which is no class of the training pictures"):
        load(tmp_path / "p", tmp_path)
    draw(tmp_path / "q" / "test")
    draw(tmp_path / "q" / "val")
    with pytest.raises(GlowError, match="has test, val and no train"):
        load(tmp_path / "q", tmp_path)


def test_a_folder_around_all_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    inner = tmp_path / "p" / "downloads" / "dataset"
    for split, count in (("train", 10), ("test", 3)):
        for name in ("ant", "bee"):
            draw(inner / split / name, count)
    (tmp_path / "p" / "README").write_text("no picture")
    (tmp_path / "p" / "__MACOSX" / "dataset").mkdir(parents=True)
    dataset = load(tmp_path / "p", tmp_path)
    assert sizes(dataset) == (2, 20, 6)
    assert f"whose content is read: {inner}" in capsys.readouterr().err
    assert dataset.fingerprint == load(inner, tmp_path).fingerprint
    # Links that lead in a circle, and a test split alone, are no such folder.
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "again").symlink_to("../q")
    with pytest.raises(GlowError, match="has no pictures"):
        load(tmp_path / "q", tmp_path)
    draw(tmp_path / "r" / "test")
    with pytest.raises(GlowError, match="has test and no train"):
        load(tmp_path / "r", tmp_path)


def test_test_pictures_that_would_be_trained_on_are_refused(tmp_path: Path):
    first, nested, beside, named = (tmp_path / name for name in "fnbi")
    for name in ("ant", "bee"):
        for split in ("train", "test"):
            draw(first / name / split)
        draw(nested / "train" / name)
    draw(nested / "train" / "val")
    with pytest.raises(
        GlowError, match=r"f/ant/test lies among .* into .*f/test/ant and .* into .*f/train/ant, or"
    ):
        load(first, tmp_path)
    with pytest.raises(GlowError, match=r"n/train/val lies among the training pictures"):
        load(nested, tmp_path)
    draw(beside)
    draw(beside / "test", 1)
    with pytest.raises(GlowError, match=r"has test and also 10 pictures: .* into .*b/train, or"):
        load(beside, tmp_path)
    for name in ("images", "test"):
        draw(named / name)
    with pytest.raises(GlowError, match="has test and also images: move what is to be trained on"):
        load(named, tmp_path)
    draw(tmp_path / "t" / "train")
    draw(tmp_path / "t", 1)
    with pytest.raises(GlowError, match="has train and also 1 picture: if train holds"):
        load(tmp_path / "t", tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path):
    for split in ("train", "test"):
        for name in ("bus", "train"):
            draw(tmp_path / "p" / split / name)
    assert load(tmp_path / "p", tmp_path).class_names == ("bus", "train")


def test_classes_that_differ_in_case_are_refused(tmp_path: Path):
    for split, names in (("train", ("ant", "bee")), ("test", ("Ant", "Bee"))):
        for name in names:
            draw(tmp_path / "p" / split / name)
    with pytest.raises(GlowError, match="test has Ant, and the training pictures have ant: give"):
        load(tmp_path / "p", tmp_path)


def test_an_empty_test_split_is_as_good_as_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    draw(tmp_path / "p" / "train")
    (tmp_path / "p" / "test").mkdir()
    assert sizes(load(tmp_path / "p", tmp_path)) == (0, 9, 1)
    assert "p/test is empty, and as good as none" in capsys.readouterr().err
    for name in "ab":
        (tmp_path / "p" / "test" / f"{name}.heic").write_text("no picture that is read")
    with pytest.raises(GlowError, match=r"p/test has no pictures, but 2 of \.heic not read: save"):
        load(tmp_path / "p", tmp_path)


def test_why_pictures_are_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "p"
    folder.mkdir()
    for number in range(3):
        values = np.linspace(-1, 1, SIZE**2, dtype=np.float32).reshape(SIZE, SIZE)
        Image.fromarray(values).save(folder / f"{number}.tif")
    with pytest.raises(GlowError, match=r"None of the 3 .* first is .*0\.tif: .* lie in -1\.\.1, "):
        load(folder, tmp_path)
    assert "note" not in capsys.readouterr().err
    draw(folder)
    assert load(folder, tmp_path).image_shape == (SIZE, SIZE, 3)
    said = capsys.readouterr().err
    assert "note: 3 of 13 pictures cannot be read and are skipped: " in said
    assert "0.tif (its floating-point values lie in -1..1, and only 0..1 says" in said
    draw(tmp_path / "g", grey=True)
    (tmp_path / "g" / "x.png").write_text("no picture")
    load(tmp_path / "g", tmp_path)
    assert "all of 10 pictures are grey" in capsys.readouterr().err


def test_dark_pictures_of_16_bits_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "p").mkdir()
    for number in range(10):
        values = np.random.default_rng(number).integers(0, 4096, (SIZE, SIZE)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "p" / f"{number}.png")
    load(tmp_path / "p", tmp_path)
    assert "10 of 10 pictures use less than a sixteenth of the range" in capsys.readouterr().err


def test_pictures_beside_classes_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("ant", "bee"):
        draw(tmp_path / "p" / name)
    draw(tmp_path / "p", 1)
    assert load(tmp_path / "p", tmp_path).classes == 0
    assert "no classes, because 1 of 21 pictures lie beside the folders" in capsys.readouterr().err


# Files that are no pictures, links, and names


def test_what_is_not_read_is_counted_by_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = draw(tmp_path / "p")
    for name in ("a.heic", "b.HEIC", "c.txt", "README", ".hidden.xyz", "Thumbs.db"):
        (folder / name).write_text("no picture")
    assert sizes(load(folder, tmp_path)) == (0, 9, 1)
    said = "4 files not read as pictures: 2 of .heic, 1 of no ending, 1 of .txt"
    assert said in capsys.readouterr().err


def test_links_lead_to_each_real_folder_once(tmp_path: Path):
    root = tmp_path / "p"
    draw(root / "b")
    draw(tmp_path / "outside", first=50)
    (root / "b" / "again").symlink_to("..")
    (root / "a").symlink_to("b")  # sorted before the real one
    (root / "c").symlink_to(tmp_path / "outside")
    (root / "dangling").symlink_to("nowhere")
    (root / "b" / "dangling.png").symlink_to("nowhere.png")
    (root / "circle.png").symlink_to("circle.png")
    found = find_pictures(root)
    assert {item.parts[0] for item in found.items} == {"b", "c"}
    assert len(found.items) == 20
    named = " ".join(found.problems)
    for name in ("p/a (", "p/b/again (", "dangling (", "dangling.png (", "circle.png ("):
        assert name in named
    assert len(load(root, tmp_path).train) == 18


def test_two_folders_that_lead_to_each_other(tmp_path: Path):
    for one, other in (("x", "y"), ("y", "x")):
        draw(tmp_path / "p" / one, 5)
        (tmp_path / "p" / one / other).symlink_to(f"../{other}")
    assert len(find_pictures(tmp_path / "p").items) == 10


def test_pipes_are_never_opened(tmp_path: Path):
    folder = draw(tmp_path / "p")
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    found = find_pictures(folder)
    assert len(found.items) == 10
    assert all("a pipe or a device" in problem for problem in found.problems)
    assert len(found.problems) == 2
    assert len(load(folder, tmp_path).train) == 9


def test_names_in_any_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for name in (b"caf\xe9", b"b\nc"):
        draw(folder / os.fsdecode(name))
    bad = folder / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff\x1b[31m.png")
    bad.write_text("no picture")
    dataset = load(folder, tmp_path)
    assert re.search(
        r"1 of 21 pictures .* skipped: .*\\xff\\x1b\[31m\.png \(", capsys.readouterr().err
    )
    assert dataset.class_names == ("b\\nc", "caf\\xe9")
    print(dataset.name)
    assert "caf\\xe9" in capsys.readouterr().out


def test_a_folder_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = draw(tmp_path / "p")
    draw(folder / "locked", first=90)
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = find_pictures(folder)
    assert len(found.items) == 10
    assert found.problems == [f"{folder / 'locked'} (Permission denied)"]


# Channels and limits


def test_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = draw(tmp_path / "p", grey=True)
    assert load(folder, tmp_path).image_shape == (SIZE, SIZE, 1)
    assert "all of 10 pictures are grey and read as 1 channel" in capsys.readouterr().err
    assert load(folder, tmp_path, channels="3").image_shape == (SIZE, SIZE, 3)
    draw(folder, 1, first=20)
    assert load(folder, tmp_path).image_shape == (SIZE, SIZE, 3)
    dataset = load(folder, tmp_path, channels="1")
    assert dataset.image_shape == (SIZE, SIZE, 1)
    with pytest.raises(GlowError, match="channels is '2'; it must be one of 1, 3, auto"):
        load(folder, tmp_path, channels="2")


def test_huge_pictures_are_left_out_by_a_limit_with_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = draw(tmp_path / "p")
    Image.new("RGB", (1000, 1000)).save(folder / "huge.png")
    dataset = load(folder, tmp_path, picture_limit=0.5)
    said = r"1 of 11 .* picture_limit 0\.5 megapixels .*huge\.png \(1000 x 1000 pixels"
    assert re.search(said, capsys.readouterr().err)
    assert len(dataset.train) + len(dataset.test) == 10
    assert len(load(folder, tmp_path).train) == 10


def test_moving_and_transparent_pictures_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = draw(tmp_path / "p")
    frames = [Image.new("RGB", (SIZE, SIZE), (200 * n, 0, 9)) for n in range(2)]
    frames[0].save(folder / "m.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (SIZE, SIZE)).save(folder / "t.png")
    for _ in range(2):  # the second start knows it from its record
        load(folder, tmp_path)
        said = capsys.readouterr().err
        assert "1 of 12 pictures move: the first frame of each is read" in said
        assert "1 of 12 pictures have transparent parts: shown on white" in said


# The same pictures


def test_a_fingerprint_is_that_of_the_pictures(tmp_path: Path):
    first = load(draw(tmp_path / "a"), tmp_path)
    moved = load(draw(tmp_path / "elsewhere" / "b"), tmp_path)
    assert first.fingerprint == moved.fingerprint
    (tmp_path / "a" / "003.png").rename(tmp_path / "a" / "103.png")
    renamed = load(tmp_path / "a", tmp_path)
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "elsewhere" / "b" / "003.png")
    changed = load(tmp_path / "elsewhere" / "b", tmp_path)
    assert len({first.fingerprint, renamed.fingerprint, changed.fingerprint}) == 3


def test_nothing_is_written_where_a_run_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, theirs = draw(tmp_path / "p"), tmp_path / "theirs"
    theirs.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = DataConfig(dataset=f"folder:{folder}", image_size=SIZE, dataroot=str(theirs))
    first = load_dataset(config, named_by_run=True)
    assert not list(theirs.iterdir())
    kept = list((tmp_path / "cache" / "glow_jax" / "decoded").rglob("images.npy"))
    assert len(kept) == 1
    assert not stat.S_ISLNK(kept[0].lstat().st_mode)
    again = load_dataset(config, named_by_run=True)
    np.testing.assert_array_equal(
        first.train[np.arange(9)].images, again.train[np.arange(9)].images
    )
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(load_dataset(config, named_by_run=True).train) == 9
    assert not list(theirs.iterdir())
