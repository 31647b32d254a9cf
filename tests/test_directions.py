"""Directions that a run keeps: `glow-jax directions`, and the files that hold them."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from demo_runs import digits_run, images_of, studio_of
from PIL import Image
from training_runs import error_of, run_script

pytest.importorskip("torch")

from glow_jax.bridge.openai import flat_noise, read_rows
from glow_jax.cli import directions
from glow_jax.demo.directions import between, groups_of
from glow_jax.errors import GlowError
from glow_jax.evaluation.likelihood import dequantized
from glow_jax.latents import class_direction
from glow_jax.runs import Direction, read_directions, write_direction


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, randomise) -> Path:
    return digits_run(tmp_path_factory.mktemp("directions") / "run", "plain", randomise)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def kept(run: Path) -> dict[str, Direction]:
    return dict(studio_of(run).directions)


def test_a_direction_is_the_difference_of_the_means(run: Path, monkeypatch, capsys) -> None:
    words = ("--of", "3", "--against", "8", "--images", "1000")
    run_script(directions.main, monkeypatch, run, *words)
    assert "3 - 8: length" in capsys.readouterr().out
    found = kept(run)["3 - 8"]
    studio = studio_of(run)
    train = images_of(studio).train
    indices = np.flatnonzero(np.isin(train[np.arange(len(train))].labels, (3, 8)))
    part = train[indices]
    x = dequantized(studio.model, part.images, indices.astype(np.uint32))
    expected = class_direction(studio.model.encode(x).noise, part.labels, 8, 3)
    for one, other in zip(found.noise, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert found.about["images_of"] == int(np.sum(part.labels == 3))


def test_every_class_against_all_others(run: Path, monkeypatch) -> None:
    run_script(directions.main, monkeypatch, run, "--images", 20)
    assert list(kept(run)) == list("0123456789")
    assert all(found.about["images_against"] == 20 for found in kept(run).values())


def test_folders_of_pictures_have_directions(run: Path, tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (tmp_path / name).mkdir()
        for number in range(4):
            pixels = rng.integers(low, low + 128, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    words = ("--of", f"folder:{tmp_path}/light", "--against", f"folder:{tmp_path}/dark")
    run_script(directions.main, monkeypatch, run, *words, "--name", "brightness")
    found = kept(run)["brightness"]
    assert found.about["images_of"] == found.about["images_against"] == 4
    groups = groups_of(studio_of(run), words[1], "", most=100)
    assert groups[1].name == "all training images"
    assert len(between(studio_of(run), *groups).noise) == 2


def test_a_file_of_openai_is_kept_row_by_row(run: Path, tmp_path: Path, monkeypatch) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    np.save(tmp_path / "z_manipulate.npy", rows)
    run_script(directions.main, monkeypatch, run, "--file", tmp_path / "z_manipulate.npy")
    found = kept(run)
    assert list(found) == [f"z_manipulate {number}" for number in range(3)]
    for row, direction in zip(rows, found.values(), strict=True):
        np.testing.assert_array_equal(flat_noise(direction.noise)[0], row)


def test_rows_are_named_as_the_classes_where_there_are_as_many(
    tmp_path: Path, randomise, monkeypatch
) -> None:
    run = digits_run(tmp_path / "run", "conditional", randomise)
    np.save(tmp_path / "z.npy", np.ones((10, 64), np.float64))
    run_script(directions.main, monkeypatch, run, "--file", tmp_path / "z.npy")
    assert "z 7" in kept(run)


class Payload:
    """What unpickling would run."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((3, 63), np.float32), r"holds an array of \(3, 63\); latents of this model are"),
        (np.zeros((0, 64), np.float32), r"an array of \(0, 64\)"),
        (np.zeros((1, 1, 64), np.float32), r"an array of \(1, 1, 64\)"),
        (np.zeros((3, 64), np.int64), "its values are int64; latents are floating-point"),
        (np.zeros((257, 64), np.float32), "it has 257 rows, more than 256"),
        (np.full((1, 64), np.nan, np.float32), "numbers that are not finite"),
        (np.array([Payload()] * 64, object), "which are no numbers"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(rows, message: str, run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", rows, allow_pickle=True)
    with pytest.raises(GlowError, match=message):
        read_rows(tmp_path / "z.npy", studio_of(run, images=False).model.config)


def test_a_file_that_promises_more_than_it_has_is_one_sentence(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", np.zeros((200, 64)))
    content = (tmp_path / "z.npy").read_bytes()
    (tmp_path / "z.npy").write_bytes(content[:500])
    with pytest.raises(GlowError, match="it ends after 372 of 102,400 bytes"):
        read_rows(tmp_path / "z.npy", studio_of(run, images=False).model.config)
    with pytest.raises(GlowError, match="No such file"):
        read_rows(tmp_path / "none.npy", studio_of(run, images=False).model.config)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--of", "12"), "There is no class 12: classes are numbered 0..9"),
        (("--against", "1"), "--against and --name belong to one direction"),
        (("--of", "1", "--file", "z.npy"), "--file and --of both say"),
        (("--of", "1", "--images", "0"), "images is 0; it must be at least 1."),
        (("--of", "1", "--name", " "), "is no name of a direction"),
        (("--of", "folder:nowhere"), "There is no folder nowhere"),
    ],
)
def test_wrong_words_are_one_sentence(words, message: str, run: Path, monkeypatch, capsys) -> None:
    assert message in error_of(directions.main, monkeypatch, capsys, run, *words)
    assert not (run / "directions").exists()


# Files


def one(run: Path) -> tuple[Direction, Path, str]:
    studio = studio_of(run, images=False)
    noise = tuple(
        np.random.default_rng(1).standard_normal((1, *shape)).astype(np.float32)
        for shape in studio.model.config.latent_shapes
    )
    direction = Direction("T-shirt/top - ../boot", {"of": "x"}, noise)
    return direction, write_direction(run, direction, weights=studio.weights), studio.weights


def test_any_name_is_kept_inside_the_run(run: Path) -> None:
    direction, path, weights = one(run)
    assert path.parent == run / "directions"
    config = studio_of(run, images=False).model.config
    found = read_directions(run, config, weights=weights)
    assert list(found) == [direction.name]
    for a, b in zip(found[direction.name].noise, direction.noise, strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_directions(run, config, weights="others") == {}


def test_a_damaged_file_is_one_sentence(run: Path) -> None:
    _, path, weights = one(run)
    config = studio_of(run, images=False).model.config
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        found: dict[str, Direction] = {}
        with contextlib.suppress(GlowError):  # no other error, whatever is damaged
            found = read_directions(run, config, weights=weights)
        for same in found.values():
            assert flat_noise(same.noise).shape == (1, 64)
    path.write_bytes(whole[:100])
    with pytest.raises(GlowError, match="is damaged: remove it"):
        read_directions(run, config, weights=weights)
    path.write_bytes(b"\0" * (2 << 20))
    with pytest.raises(GlowError, match="more bytes than a direction"):
        read_directions(run, config, weights=weights)


def test_a_link_is_not_followed(run: Path, tmp_path: Path) -> None:
    _, path, _ = one(run)
    path.rename(tmp_path / "elsewhere.npz")
    path.symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(GlowError, match="symbolic link"):
        studio_of(run, images=False)
