"""The demo of a model whose images have several classes at once: draws, looks, directions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from demo_runs import images_of, several_run, studio_of
from PIL import Image
from test_demo import address_of, bits_shown, only_picture
from training_runs import run_script

from glow_jax.cli import directions
from glow_jax.demo.desk import IN_TURN, OTHERS, Desk
from glow_jax.demo.drawing import Wish, draw
from glow_jax.demo.looking import look
from glow_jax.demo.standing import known_of, measure_training
from glow_jax.demo.studio import Studio, from_test_split
from glow_jax.evaluation.evaluate import evaluate
from glow_jax.evaluation.likelihood import dequantized
from glow_jax.runs import Direction

LOOP = 14


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, randomise) -> Path:
    return several_run(tmp_path_factory.mktemp("several") / "run", randomise)


@pytest.fixture(scope="module")
def studio(run: Path) -> Studio:
    return studio_of(run)


def label_of(*classes: int) -> np.ndarray:
    y = np.zeros((1, 15), np.float32)
    y[0, list(classes)] = 1
    return y


@pytest.mark.parametrize("classes", [(), (3,), (8, LOOP)])
def test_a_draw_takes_any_number_of_classes(classes: tuple[int, ...], studio: Studio) -> None:
    drawn = draw(studio, Wish(number=2, classes=list(classes)))
    np.testing.assert_array_equal(drawn.y, np.repeat(label_of(*classes), 2, axis=0))
    one = draw(studio, Wish(number=1, classes=list(classes))).pixels[0]
    shown = Desk(studio).draws(0.7, 0, 1, list(classes))
    np.testing.assert_array_equal(only_picture(shown)[1:-1, 1:-1, 0], one[..., 0])
    names = ", ".join(map(str, classes)) or "no class"
    assert f"1 image drawn at temperature 0.7 with seed 0: {names}." in shown


def test_all_in_turn_gives_way_to_a_class(studio: Studio) -> None:
    desk = Desk(studio)
    assert "all classes in turn" in desk.draws(0.7, 0, 2, [IN_TURN])
    assert desk.draws(0.7, 0, 2, [IN_TURN, 4]) == desk.draws(0.7, 0, 2, [4])
    assert "There is no class 15." in desk.draws(0.7, 0, 2, [15])


@pytest.mark.slow
def test_a_test_image_is_looked_at_under_its_own_labels(studio: Studio) -> None:
    found = evaluate(studio.run, studio.dataset).likelihood
    _, y = from_test_split(studio, 5)
    np.testing.assert_array_equal(y, images_of(studio).test[np.array([5])].labels)
    held, shown = Desk(studio).test(5)
    assert held is not None
    assert bits_shown(shown) == pytest.approx(found.bits_per_dim[5], abs=1e-5)
    assert y is not None
    names = ", ".join(map(str, np.flatnonzero(y[0])))
    assert f"<figcaption>test image 5 ({names})</figcaption>" in shown


def test_an_upload_is_looked_at_under_the_chosen_classes(studio: Studio) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8), dtype=np.uint8)
    found = set()
    for classes in ((), (6,), (6, LOOP)):
        picture = address_of(Image.fromarray(pixels))
        held, shown = Desk(studio).picture(picture, "picture.png", list(classes))
        assert held is not None
        x = dequantized(studio.model, pixels[None, ..., None], np.zeros(1, np.uint32))
        expected = float(studio.model.bits_per_dim(x, label_of(*classes))[0])
        assert bits_shown(shown) == pytest.approx(expected, abs=1e-5)
        found.add(bits_shown(shown))
    assert len(found) == 3


@pytest.mark.slow
def test_training_images_are_measured_under_their_labels(run: Path, tmp_path: Path) -> None:
    studio = studio_of(Path(shutil.copytree(run, tmp_path / "run")))
    for _ in measure_training(studio):
        pass
    bits = known_of(studio).training["bits_per_dim"]
    images = images_of(studio).train[np.arange(20)]
    x = dequantized(studio.model, images.images, np.arange(20, dtype=np.uint32))
    expected = studio.model.bits_per_dim(x, images.labels.astype(np.float32))
    np.testing.assert_allclose(bits[:20], expected, atol=1e-5)
    shown = Desk(studio).test(5)[1]
    assert "of 100 training images: " in shown
    assert f"Histogram of bits per dimension of {len(bits)} training images" in shown


# Directions


def expected_direction(studio: Studio, has: int, without: int | None = None) -> list[np.ndarray]:
    """Mean latents of the images with a class minus those without, or those with another."""
    train = images_of(studio).train
    part = train[np.arange(len(train))]
    x = dequantized(studio.model, part.images, np.arange(len(part), dtype=np.uint32))
    noise = studio.model.encode(x, part.labels.astype(np.float32)).noise
    there = part.labels[:, has] == 1
    here = ~there if without is None else part.labels[:, without] == 1
    return [np.asarray(e)[there].mean(0) - np.asarray(e)[here].mean(0) for e in noise]


def assert_is(direction: Direction, expected: list[np.ndarray]) -> None:
    for one, other in zip(direction.noise, expected, strict=True):
        np.testing.assert_allclose(one[0], other, atol=1e-5)


@pytest.mark.slow
def test_the_command_makes_a_direction_of_each_attribute(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    run_script(directions.main, monkeypatch, copy, "--images", 2000)
    studio = studio_of(copy)
    assert set(studio.directions) == set(map(str, range(15)))
    assert_is(studio.directions["14"], expected_direction(studio, LOOP))
    about = studio.directions["14"].about
    assert (about["of"], about["against"]) == ("14", "not 14")


@pytest.mark.slow
def test_an_attribute_that_no_image_has_is_left_out(
    tmp_path: Path, randomise, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run = several_run(tmp_path / "run", randomise)
    with np.load(tmp_path / "groups.npz") as file:
        arrays = dict(file)
    arrays["labels"][:, LOOP] = 0
    np.savez(tmp_path / "groups.npz", **arrays)
    run_script(directions.main, monkeypatch, run, "--images", 5)
    assert set(studio_of(run).directions) == set(map(str, range(14)))
    assert "note: left out: There is no training image of 14." in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_makes_a_direction_and_shows_it_at_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glow_jax.demo.desk._DIRECTION_IMAGES", 2000)
    desk = Desk(studio_of(Path(shutil.copytree(run, tmp_path / "run"))))
    *bars, last = desk.direct(LOOP, OTHERS)
    total = len(images_of(desk.studio).train)
    assert f"{total} of {total}" in bars[-1]
    assert "Kept in the run" in last
    assert_is(desk.studio.directions["14"], expected_direction(desk.studio, LOOP))
    *_, last = desk.direct(LOOP, 10)
    assert_is(desk.studio.directions["14 - 10"], expected_direction(desk.studio, LOOP, 10))
    assert list(studio_of(tmp_path / "run").directions) == ["14", "14 - 10"]
    held, _ = desk.end("test", 0, [], None)
    moved = desk.frame(held, None, 0, [1, 2], "14", 2.0)
    assert not np.array_equal(only_picture(moved), only_picture(desk.frame(held, None, 0, [1, 2])))


def test_a_direction_that_is_halted_is_not_kept(run: Path, tmp_path: Path) -> None:
    desk = Desk(studio_of(Path(shutil.copytree(run, tmp_path / "run"))))
    steps = desk.direct(LOOP, OTHERS)
    next(steps)
    assert "Another long work goes on already" in "".join(desk.measure())
    desk.halt()
    assert "Stopped." in "".join(steps)
    assert not (tmp_path / "run" / "directions").exists()
    for of, against in ((OTHERS, 3), (None, OTHERS), (15, OTHERS)):
        assert 'role="alert"' in "".join(desk.direct(of, against))


def test_a_walk_keeps_the_labels_of_its_start(studio: Studio) -> None:
    pixels, y = from_test_split(studio, 0)
    seen = look(studio, pixels, y)
    held, _ = Desk(studio).end("test", 0, [], None)
    assert held is not None
    assert held.encoded.y is not None
    np.testing.assert_array_equal(held.encoded.y, y)
    np.testing.assert_array_equal(held.pixels, seen.pixels)
