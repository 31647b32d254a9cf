"""What the page of the demo shows, without the page."""

import base64
import dataclasses
import io
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from demo_runs import KINDS, digits_run, images_of, labels_of, studio_of
from ood_runs import save_run, untrained
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import Image

from glow_jax.data import InMemory
from glow_jax.demo import html
from glow_jax.demo.desk import IN_TURN, Desk, Held, Source
from glow_jax.demo.drawing import Wish, draw, way_of
from glow_jax.demo.editing import BATCH, Edit, arc, edited, walk
from glow_jax.demo.incoming import LARGEST_FILE, content_of, picture_from
from glow_jax.demo.looking import REDRAWN, Encoded, drawn_anew, look
from glow_jax.demo.standing import Rank, in_words, known_of, measure_training, ranks_of
from glow_jax.demo.studio import Studio, from_test_split
from glow_jax.demo.video import there_and_back
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import evaluate
from glow_jax.evaluation.likelihood import dequantized
from glow_jax.evaluation.samples import labels_in_turn, one_label, sample_pixels
from glow_jax.latents import slerp
from glow_jax.ood.comparison import Job
from glow_jax.ood.images import Images
from glow_jax.ood.measure import likelihood_meter
from glow_jax.runs import Direction, write_direction
from glow_jax.runs.measured import measured_file, write_columns

REPOSITORY = Path(__file__).resolve().parents[1]
# Those left to the slow tests are parts of these.
EVERYDAY = ("conditional_edge_bias",)
every_kind = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in EVERYDAY else pytest.mark.slow) for kind in KINDS],
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, randomise: Callable[..., Any]):
    place = tmp_path_factory.mktemp("demo")
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = digits_run(place / kind, kind, randomise)
        return made[kind]

    return of


@pytest.fixture(scope="module")
def studios(folders):
    made: dict[str, Studio] = {}

    def of(kind: str) -> Studio:
        if kind not in made:
            made[kind] = studio_of(folders(kind))
        return made[kind]

    return of


@pytest.fixture(scope="module")
def plain(studios) -> Studio:
    """With a direction that changes every value."""
    studio: Studio = studios("plain")
    rng = np.random.default_rng(0)
    shapes = studio.model.config.latent_shapes
    noise = tuple(rng.standard_normal((1, *shape)).astype(np.float32) for shape in shapes)
    return dataclasses.replace(studio, directions={"up": Direction("up", {}, noise)})


def address_of(picture: Image.Image, kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def bits_shown(shown: str) -> float:
    """The exact number that a page shows rounded."""
    (found,) = re.findall(r'data-bits="([^"]+)"', shown)
    return float(found)


def shown_pixels(shown: str) -> list[np.ndarray]:
    """The pictures in some HTML."""
    found = re.findall(r'<img[^>]*src="data:image/png;base64,([^"]+)"', shown)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def only_picture(shown: str) -> np.ndarray:
    (found,) = shown_pixels(shown)
    return found


# Drawing


@every_kind
def test_draws_are_those_of_the_command(kind: str, studios) -> None:
    studio: Studio = studios(kind)
    drawn = draw(studio, Wish(temperature=0.6, seed=3, number=11))
    y = labels_in_turn(studio.model, 11)
    expected = sample_pixels(studio.model, jax.random.key(3), 11, temperature=0.6, y=y)
    np.testing.assert_array_equal(drawn.pixels, expected)


def test_a_seed_at_another_temperature_is_the_same_draw(plain: Studio) -> None:
    cool, hot = (draw(plain, Wish(temperature=t, seed=5, number=3)).noise for t in (0.4, 0.8))
    for one, other in zip(cool, hot, strict=True):
        np.testing.assert_allclose(2 * np.asarray(one), other, rtol=1e-6)
    none = draw(plain, Wish(temperature=0, number=3)).pixels
    np.testing.assert_array_equal(none[0], none[2])


def test_a_class_is_the_one_that_is_chosen(studios) -> None:
    studio: Studio = studios("conditional")
    y = draw(studio, Wish(number=4, classes=[7])).y
    np.testing.assert_array_equal(y, np.eye(10)[[7] * 4])
    desk = Desk(studio)
    one, other, in_turn = (desk.draws(0, 0, 1, chosen) for chosen in (7, 2, IN_TURN))
    first, second, third, zero = map(only_picture, (one, other, in_turn, desk.draws(0, 0, 1, 0)))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(third, zero)


@every_kind
def test_the_way_from_noise_ends_in_the_image(kind: str, studios) -> None:
    studio: Studio = studios(kind)
    drawn = draw(studio, Wish(seed=1, number=1))
    way = way_of(studio, drawn.noise, drawn.y)
    assert len(way.stages) == studio.model.config.L + 1
    np.testing.assert_array_equal(way.stages[-1], drawn.pixels[0])
    mean = draw(studio, Wish(temperature=0, number=1)).pixels[0]
    np.testing.assert_array_equal(way.stages[0], mean)
    assert way.noise.shape == studio.model.config.image_shape


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((3.0, 0, 1, None), "The temperature is 3.0; it must be from 0 to 2."),
        ((0.7, 0, 65, None), "The number of images is 65; it must be from 1 to 64."),
        ((0.7, -1, 1, None), "The seed is -1; it must be from 0 to 4294967295."),
        ((0.7, None, 1, None), "The seed is no number: give one."),
        ((float("nan"), 0, 1, None), "The temperature is no number: give one."),
        ((0.7, 0, 1.5, None), "The number of images is 1.5; it must be a whole number."),
        (("0.7", 0, 1, None), "The temperature is no number: give one."),
    ],
)
def test_a_wrong_wish_is_one_sentence(values, sentence: str, plain: Studio) -> None:
    assert Desk(plain).draws(*values) == html.error(sentence)


# Looking


@every_kind
def test_numbers_are_those_of_the_evaluation(kind: str, studios) -> None:
    studio: Studio = studios(kind)
    found = evaluate(studio.run, studio.dataset).likelihood
    for number in (0, 5, 41):
        shown = Desk(studio).test(number)[1]
        assert bits_shown(shown) == pytest.approx(found.bits_per_dim[number], abs=1e-5)
        pixels, y = from_test_split(studio, number)
        seen = look(studio, pixels, y, index=number)
        np.testing.assert_allclose(
            seen.level_bits_per_dim, found.level_bits_per_dim[number], atol=1e-5
        )
        assert seen.level_bits_per_dim.sum() == pytest.approx(seen.bits_per_dim, abs=1e-5)


@every_kind
def test_bits_of_an_uploaded_picture_are_the_model_s(kind: str, studios) -> None:
    studio: Studio = studios(kind)
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 16), dtype=np.uint8))
    chosen = 4 if studio.model.config.y_condition else None
    held, shown = Desk(studio).picture(address_of(picture), "picture.png", chosen)
    # The picture as a person would cut it: means over squares of 2 x 2, rounded.
    pixels = np.asarray(picture.resize((8, 8), Image.Resampling.BOX))[None, ..., None]
    y = one_label(studio.model, [4]) if chosen else None
    x = dequantized(studio.model, pixels, np.zeros(1, np.uint32))
    expected = float(studio.model.bits_per_dim(x, y)[0])
    assert bits_shown(shown) == pytest.approx(expected, abs=1e-5)
    assert held is not None


@every_kind
def test_the_error_is_in_grey_levels_of_the_model(kind: str, studios) -> None:
    studio: Studio = studios(kind)
    pixels, y = from_test_split(studio, 2)
    seen = look(studio, pixels, y, index=2)
    assert 0 < seen.largest_error < 0.01
    assert seen.changed == 0
    np.testing.assert_array_equal(seen.reconstruction, seen.pixels)
    # Of the 4 bits that the model keeps.
    assert set(np.unique(seen.pixels)) <= {17 * grey for grey in range(16)}


def test_one_level_is_drawn_anew(plain: Studio) -> None:
    pixels, y = from_test_split(plain, 0)
    encoded = look(plain, pixels, y).encoded
    for level in (0, 1):
        new = drawn_anew(plain, encoded, level, seed=1, temperature=1.0)
        assert new.shape == (REDRAWN, 8, 8, 1)
        assert not np.array_equal(new[0], new[1])
        same = drawn_anew(plain, encoded, level, seed=1, temperature=1.0)
        np.testing.assert_array_equal(new, same)
    assert "no such level" not in Desk(plain).anew(None, 1, 0.7, 0)
    assert "level is 4" in Desk(plain).anew(Held(pixels, encoded), 5, 0.7, 0)


def png_of(size: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size, size)).save(buffer, "PNG")
    return buffer.getvalue()


HOSTILE = {
    "empty": b"",
    "text": b"<?php system($_GET['x']);",
    "cut": png_of(9)[:40],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
    "pickle": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
    "lying": png_of(9).replace(b"\0\0\0\x09\0\0\0\x09", b"\0\0\0\x08\0\0\0\x08"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_one_sentence(name: str, plain: Studio) -> None:
    text = f"data:application/octet-stream;base64,{base64.b64encode(HOSTILE[name]).decode()}"
    held, shown = Desk(plain).picture(text, "picture.png", None)
    assert held is None
    (sentence,) = re.findall(r'<p class="error" role="alert">(.*)</p>', shown)
    assert sentence.startswith("This file is no picture that can be read")
    assert sentence.count(".") == 1


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("", "There is no picture yet"),
        (None, "There is no picture yet"),
        ("https://example.org/a.png", "There is no picture yet"),
        ("data:image/png;base64,?", "This picture arrived damaged"),
        ("data:," + "A" * (LARGEST_FILE // 3 * 4 + 2000), "This file has more than 32 MiB"),
    ],
)
def test_what_is_no_picture_is_one_sentence(address, sentence: str) -> None:
    with pytest.raises(GlowError, match=sentence):
        content_of(address)


def test_too_large_and_too_small_pictures_are_named(plain: Studio) -> None:
    with pytest.raises(GlowError, match="8000 x 8000 pixels are more than 50 megapixels"):
        picture_from(plain, png_of(8000))
    with pytest.raises(GlowError, match="smaller than the 8 x 8 pixels"):
        picture_from(plain, png_of(7))


def test_names_of_classes_are_text_and_never_markup() -> None:
    assert "<script>" not in html.table("<script>", ["<script>"], [["<script>", "<script>"]])
    black = np.zeros((2, 2, 1), np.uint8)
    assert "<script>" not in html.figure(black, "<script>") + html.picture(black, '"><script>')


# Standing


def test_training_images_are_measured_once_and_ranks_are_theirs(
    tmp_path: Path, randomise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glow_jax.demo.standing._MEASURED_AT_ONCE", 400)
    studio = studio_of(digits_run(tmp_path / "run", "plain", randomise))
    assert known_of(studio).training == {}
    steps = measure_training(studio)
    next(steps)
    next(steps)
    steps.close()
    started = len(known_of(studio).training["bits_per_dim"])
    assert 400 <= started < len(images_of(studio).train)
    *_, (done, total) = measure_training(studio)
    assert done == total
    known = known_of(studio)
    assert len(known.training["bits_per_dim"]) == len(images_of(studio).train)
    assert {"png", "level_bits_per_dim"} <= set(known.training)

    pixels, y = from_test_split(studio, 3)
    seen = look(studio, pixels, y, index=3)
    ranks = {rank.name: rank for rank in ranks_of(studio, seen, known)}
    bits = known.training["bits_per_dim"]
    assert ranks["likelihood"].below == pytest.approx(100 * np.mean(bits > seen.bits_per_dim))
    near = np.abs(bits - bits.mean()) > abs(seen.bits_per_dim - bits.mean())
    assert ranks["typicality"].below == pytest.approx(100 * np.mean(near))
    shown = Desk(studio).test(3)[1]
    assert f"Histogram of bits per dimension of {len(bits)} training images" in shown
    assert in_words(list(ranks.values())) in shown


def test_other_images_that_were_measured_are_lines_in_the_histogram(
    tmp_path: Path, randomise
) -> None:
    folder = digits_run(tmp_path / "run", "plain", randomise)
    studio = studio_of(folder)
    meter = likelihood_meter(studio.flow)
    rng = np.random.default_rng(0)
    bits = rng.normal(4, 0.3, 50)
    training = {"bits_per_dim": bits, "level_bits_per_dim": np.stack([bits / 2] * 2, axis=1)}
    origin = {**meter.origin, "images_sha256": "of some images"}
    write_columns(measured_file(folder, "digits-training", meter.name), origin, training)
    stale = {**origin, "weights_sha256": "of other weights"}
    write_columns(measured_file(folder, "stale-test", meter.name), stale, training)
    pixels = rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    noise = Images("white <noise>", "test", InMemory(pixels, np.empty((30, 0), np.int32)))
    # As `eval.py --ood` measures and keeps a data set.
    kept = Job(noise, meter).carry_out(folder, batch_size=10)["bits_per_dim"]

    known = known_of(studio)
    assert set(known.others) == {"white--noise--test"}
    np.testing.assert_array_equal(known.others["white--noise--test"], kept)
    shown = Desk(studio).test(3)[1]
    assert shown.count("<polyline") == 1
    legend = f"of 30 images of white--noise--test, mean {kept.mean():.2f}"
    assert f'<li class="other0">{legend}</li>' in shown
    assert f"bits/dim of 50 training images, mean {bits.mean():.2f}" in shown
    # The line's highest point is over the bin where most of the noise lies.
    (points,) = re.findall(r'points="([^"]+)"', shown)
    places = np.array([point.split(",") for point in points.split()], float)
    bits_here = bits_shown(shown)
    ends = np.array([*np.quantile(bits, (0.0005, 0.9995)), *np.quantile(kept, (0.0005, 0.9995))])
    further = ends[1] - ends[0]
    low = max(min(ends.min(), bits_here), ends[0] - further)
    high = min(max(ends.max(), bits_here), ends[1] + further)
    margin = 0.03 * (high - low)
    edges = np.linspace(low - margin, high + margin, len(places) + 1)
    counts, _ = np.histogram(np.clip(kept, edges[0], edges[-1]), edges)
    assert np.argmin(places[:, 1]) == np.argmax(counts)


def test_ticks_of_the_histogram_are_where_their_numbers_are() -> None:
    # 0 lies in the margin.
    drawn = html.histogram(np.linspace(0.1, 8.5, 1000), {}, 5.0)
    ticks = re.findall(r'<text x="([\d.]+)"[^>]*>(\d+)</text>', drawn)
    assert [value for _, value in ticks] == ["0", "2", "4", "6", "8"]
    np.testing.assert_allclose(np.diff([float(x) for x, _ in ticks], n=2), 0, atol=0.3)


def test_sets_far_away_do_not_squash_the_histogram() -> None:
    training = np.random.default_rng(0).normal(3, 0.5, 1000)
    first, last = np.quantile(training, (0.0005, 0.9995))
    most = 1.2 * (last - first)
    far = {"noise": np.full(10, 1e12), "near": training + 0.1}
    for here in (-1e9, 3.0, 1e9, float("nan"), float("inf")):
        drawn = html.histogram(training, far, here)
        ticks = [float(tick) for tick in re.findall(r'text-anchor="middle">([-\d.e+]+)<', drawn)]
        assert len(ticks) >= 2
        assert first - most <= min(ticks) < max(ticks) <= last + most
        assert ">-0<" not in drawn
        (mark,) = re.findall(r'class="here" x1="([-\d.]+)"', drawn)
        assert 0 <= float(mark) <= 640
        noise, _ = re.findall(r'points="([^"]+)"', drawn)
        heights = [float(point.split(",")[1]) for point in noise.split()]
        assert np.argmin(heights) == len(heights) - 1  # all of it in the last bin
        assert f"this image, {here:.2f}" in drawn


@pytest.mark.slow
def test_conditional_training_images_are_measured_under_their_labels(
    tmp_path: Path, randomise
) -> None:
    studio = studio_of(digits_run(tmp_path / "run", "conditional", randomise))
    for _ in measure_training(studio):
        pass
    bits = known_of(studio).training["bits_per_dim"]
    images = images_of(studio).train[np.arange(20)]
    x = dequantized(studio.model, images.images, np.arange(20, dtype=np.uint32))
    y = np.eye(10, dtype=np.float32)[images.labels]
    np.testing.assert_allclose(bits[:20], studio.model.bits_per_dim(x, y), atol=1e-5)


@pytest.mark.slow
def test_numbers_of_other_weights_are_not_shown(tmp_path: Path, randomise) -> None:
    studio = studio_of(digits_run(tmp_path / "run", "plain", randomise))
    for _ in measure_training(studio):
        pass
    other = studio_of(save_run(tmp_path / "other", untrained()))
    measured = tmp_path / "run" / "ood"
    measured.rename(tmp_path / "other" / "ood")
    found = set(known_of(other).training)
    assert "bits_per_dim" not in found


@pytest.mark.parametrize(
    ("likelihood", "png", "typicality", "sentence"),
    [
        (92, 95, 3, "Likelier than 92 of 100 training images: simple, not typical."),
        (50, 50, 90, "Likelier than 50 of 100 training images: of usual complexity, typical."),
        (0, 2, 0, "Likelier than 0 of 100 training images: complex, not typical."),
    ],
)
def test_scores_in_plain_words(likelihood, png, typicality, sentence: str) -> None:
    below = {"likelihood": likelihood, "png": png, "typicality": typicality}
    ranks = [Rank(name, name, 0.0, float(value)) for name, value in below.items()]
    assert in_words(ranks) == sentence


# Editing


@pytest.fixture(scope="module")
def pair(plain: Studio) -> tuple[Encoded, Encoded]:
    first, second = (
        look(plain, *from_test_split(plain, number), index=number).encoded for number in (0, 1)
    )
    return first, second


def test_sliders_that_come_back_show_the_same_pixels(
    plain: Studio, pair: tuple[Encoded, Encoded]
) -> None:
    pixels = from_test_split(plain, 0)[0]
    start = edited(plain, *pair, Edit())
    np.testing.assert_array_equal(start, look(plain, pixels, None).pixels)
    for edit in (Edit(mix=0.3), Edit(amounts={"up": 1.5}), Edit(mix=1, amounts={"up": -1})):
        assert not np.array_equal(edited(plain, *pair, edit), start)
    for edit in (Edit(), Edit(amounts={"up": 0.0}), Edit(mix=0.4, levels=[])):
        np.testing.assert_array_equal(edited(plain, *pair, edit), start)


def test_a_mix_is_the_arc(plain: Studio, pair: tuple[Encoded, Encoded]) -> None:
    noise = slerp(pair[0].noise, pair[1].noise, 0.25)
    expected = plain.model.to_pixels(plain.model.decode_noise(noise))[0]
    np.testing.assert_array_equal(edited(plain, *pair, Edit(mix=0.25)), expected)
    np.testing.assert_array_equal(
        edited(plain, *pair, Edit(mix=1)), edited(plain, pair[1], None, Edit())
    )


def test_an_edit_touches_the_chosen_levels_only(
    plain: Studio, pair: tuple[Encoded, Encoded]
) -> None:
    way = plain.directions["up"].noise
    for level in (0, 1):
        noise = [np.array(entry) for entry in pair[0].noise]
        noise[level] = noise[level] + 1.5 * way[level]
        expected = plain.model.to_pixels(plain.model.decode_noise(tuple(noise)))[0]
        edit = Edit(amounts={"up": 1.5}, levels=[level])
        np.testing.assert_array_equal(edited(plain, *pair, edit), expected)


def test_a_walk_is_its_edits(plain: Studio, pair: tuple[Encoded, Encoded]) -> None:
    edits = arc(BATCH + 3)
    seen: list[int] = []
    frames = walk(plain, *pair, edits, seen.append)
    assert seen == [BATCH, 3]
    for frame, edit in zip(frames, edits, strict=True):
        difference = frame.astype(int) - edited(plain, *pair, edit)
        assert np.abs(difference).max() <= 17  # one grey level of 4 bits: another batch rounds
    back = there_and_back(frames)
    assert len(back) == 2 * len(frames) - 2
    np.testing.assert_array_equal(back[1], back[-1])


def test_edits_of_conditional_models_keep_the_label(studios) -> None:
    studio: Studio = studios("conditional")
    pixels, y = from_test_split(studio, 0)
    seen = look(studio, pixels, y)
    np.testing.assert_array_equal(edited(studio, seen.encoded, None, Edit()), seen.pixels)
    np.testing.assert_array_equal(y, labels_of(studio, 1))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (Edit(amounts={"left": 1}), "The run keeps no direction 'left'; it keeps up."),
        (Edit(levels=[2]), "There is no level 3; the run has levels 1 to 2."),
        (Edit(mix=0.5), "There is no second image to mix with"),
        (Edit(amounts=dict.fromkeys("abcde", 1)), "5 directions are chosen; at most 4"),
    ],
)
def test_an_edit_that_cannot_be_is_one_sentence(
    edit, sentence: str, plain: Studio, pair: tuple[Encoded, Encoded]
) -> None:
    with pytest.raises(GlowError, match=sentence):
        edited(plain, pair[0], None, edit)


def test_ends_come_from_everywhere(plain: Studio) -> None:
    desk = Desk(plain)
    held, said = desk.end("test", 3, None, None)
    assert held is not None
    assert said == ""
    drawn, _ = desk.end("draw", 3, None, None)
    assert drawn is not None
    np.testing.assert_array_equal(drawn.pixels, draw(plain, Wish(seed=3, number=1)).pixels[0])
    assert desk.end("mine", 0, None, drawn)[0] is drawn
    wrong: list[tuple[Source, float]] = [("mine", 0), ("test", 10**6), ("draw", -1)]
    for source, number in wrong:
        nothing, said = desk.end(source, number, None, None)
        assert nothing is None
        assert 'role="alert"' in said
    one, other = desk.frame(held, drawn, 0.5, [1, 2], "up", 1.0), desk.frame(held, None, 0, [1])
    changed, same = only_picture(one), only_picture(other)
    assert not np.array_equal(changed, same)
    np.testing.assert_array_equal(same, held.pixels[..., 0])


def test_without_its_images_a_run_still_draws(folders) -> None:
    studio = studio_of(folders("plain"), images=False)
    desk = Desk(studio)
    assert shown_pixels(desk.draws(0.7, 0, 4, None))
    assert "the data set of this run is not here" in desk.test(0)[1]
    assert "training images of this run are not here" in "".join(desk.measure())


def test_a_direction_of_the_run_is_there_when_it_is_opened(tmp_path: Path, randomise) -> None:
    folder = digits_run(tmp_path / "run", "plain", randomise)
    studio = studio_of(folder)
    noise = tuple(np.ones((1, *shape), np.float32) for shape in studio.model.config.latent_shapes)
    write_direction(folder, Direction("ones", {}, noise), weights=studio.weights)
    write_direction(folder, Direction("stale", {}, noise), weights="of other weights")
    assert list(studio_of(folder).directions) == ["ones"]


# The Space


def test_a_space_is_what_hugging_face_takes() -> None:
    """Its requirements are the package's, which is beside them and is not installed."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = (REPOSITORY / "spaces" / "requirements.txt").read_text().splitlines()
    assert listed == [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    head = (REPOSITORY / "spaces" / "README.md").read_text().split("---\n")[1]
    card = dict(line.split(": ", 1) for line in head.splitlines())
    assert card["sdk"] == "gradio"
    gradio = next(Requirement(line) for line in listed if line.startswith("gradio"))
    assert gradio.specifier.contains(card["sdk_version"])
    assert SpecifierSet(project["requires-python"]).contains(card["python_version"].strip('"'))
    assert (REPOSITORY / "spaces" / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {card["colorFrom"], card["colorTo"]} <= colours
