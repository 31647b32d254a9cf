"""The page of the demo in Chromium: every control, every number, many visitors, accessibility.

It takes `pip install -e '.[browser]'` and the system's Chromium; without them these tests are
skipped. The check of accessibility takes axe-core's file, which GLOW_AXE names.
"""

import base64
import contextlib
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_runs import digits_run, images_of, several_run, studio_of
from PIL import Image
from training_runs import run_script

from glow_jax.cli import directions, walk
from glow_jax.demo.drawing import Wish, draw
from glow_jax.demo.incoming import picture_from
from glow_jax.demo.limits import MOST_BYTES
from glow_jax.demo.studio import Studio, from_test_split
from glow_jax.evaluation.evaluate import evaluate
from glow_jax.evaluation.likelihood import dequantized
from glow_jax.evaluation.samples import grid

REPOSITORY = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
AXE = os.environ.get("GLOW_AXE", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"pip install -e '.[browser]': no {MISSING}"),
    pytest.mark.skipif(CHROMIUM is None, reason="apt-get install chromium"),
]
DESKTOP, PHONE = (1100, 900), (375, 812)
SECONDS = 60_000  # milliseconds: a machine may be busy
VISITORS = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, randomise) -> Path:
    """A run of the digits with two directions."""
    folder = digits_run(tmp_path_factory.mktemp("page") / "run", "plain", randomise)
    with pytest.MonkeyPatch.context() as patch:
        for of in ("3", "8"):
            run_script(directions.main, patch, folder, "--of", of, "--images", 20)
    return folder


@pytest.fixture(scope="module")
def studio(run: Path) -> Studio:
    return studio_of(run)


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    kept = tmp_path_factory.mktemp("kept")
    with serving(run, kept) as address:
        yield address, kept


# As Hugging Face sets them for a Space of the kind Gradio, except for the port.
SPACE = {
    "SYSTEM": "spaces",
    "SPACE_ID": "somebody/glow",
    "SPACE_HOST": "somebody-glow.hf.space",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_NUM_PORTS": "1",
    "GRADIO_ALLOW_FLAGGING": "never",
    "GRADIO_THEME": "huggingface",
    "PYTHONUNBUFFERED": "1",
}


@contextlib.contextmanager
def serving(run: Path, kept: Path) -> Iterator[str]:
    """Open the page of a run by the script; gradio has a folder for its files."""
    variables = {"PYTHONPATH": str(REPOSITORY)}
    with listening(["demo.py", str(run)], REPOSITORY, kept, variables) as address:
        yield address


@contextlib.contextmanager
def serving_space(run: Path, kept: Path, folder: Path) -> Iterator[str]:
    """Open the page as a Space does: its files, the package and the run in one folder."""
    shutil.copytree(REPOSITORY / "spaces", folder)
    shutil.copytree(REPOSITORY / "glow_jax", folder / "glow_jax")
    shutil.copytree(run, folder / "run")
    with listening(["app.py"], folder, kept, SPACE) as address:
        yield address


@contextlib.contextmanager
def listening(
    words: Sequence[str], folder: Path, kept: Path, variables: Mapping[str, str]
) -> Iterator[str]:
    """Run a script of the page in a folder, at a free port, until Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    is_space = "SPACE_ID" in variables
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = {"GRADIO_TEMP_DIR": str(kept)} | ({"GRADIO_SERVER_PORT": str(port)} if is_space else {})
    process = subprocess.Popen(
        [sys.executable, *words, *([] if is_space else ["--port", str(port)])],
        cwd=folder,
        env={**inherited, **where, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("open "):
                break
        host = "localhost" if is_space else "127.0.0.1"  # 0.0.0.0 is no place to open
        try:
            assert f"open http://{host}:{port}/ in a browser" in said, said
            yield f"http://127.0.0.1:{port}/"
        except BaseException:
            process.kill()
            raise
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 130, rest
        # A Space has gradio's package spaces, which its thread that reloads files asks for.
        assert is_space or "Traceback" not in rest, rest


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import (  # pyright: ignore[reportMissingImports]  # an extra
        sync_playwright,
    )

    with sync_playwright() as playwright:
        # Containers have no sandbox; the pages are our own.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser: Any, server: tuple[str, Path], size: tuple[int, int], **options: Any) -> Any:
    """The page, once its first draw is there; whatever it asks of other machines is an error."""
    context = browser.new_context(
        viewport=dict(zip(("width", "height"), size, strict=True)), **options
    )
    context.set_default_timeout(SECONDS)
    page = context.new_page()
    page.strangers = []
    ours = (server[0], "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(ours) or page.strangers.append(r.url))
    page.goto(server[0])
    page.get_by_role("img", name="16 images drawn").wait_for()
    page.get_by_role("img", name="Image 1, no noise").wait_for()
    return page


@pytest.fixture
def page(browser, server) -> Iterator[Any]:
    page = opened(browser, server, DESKTOP)
    yield page
    assert page.strangers == []
    page.context.close()


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def fill(page: Any, name: str, value: object) -> None:
    """Write a number into a field, or beside a slider."""
    for label in (name, f"number input for {name}"):
        field = page.get_by_role("spinbutton", name=label, exact=True)
        if field.count():
            field.fill(str(value))
            field.press("Enter")
            field.blur()
            return
    raise AssertionError(f"no field {name}")


def pixels(image: Any) -> np.ndarray:
    """A picture of the page, as grey pixels."""
    text = image.get_attribute("src").partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture.convert("L"))


def frame(page: Any) -> np.ndarray:
    return pixels(page.get_by_role("img", name="The edited image"))


def frame_after(page: Any, before: np.ndarray) -> np.ndarray:
    """The edited image, once it is another one."""
    deadline = time.monotonic() + SECONDS / 1000
    while time.monotonic() < deadline:
        found = frame(page)
        if not np.array_equal(found, before):
            return found
        page.wait_for_timeout(50)
    raise AssertionError("the image stays as it is")


def bits(page: Any) -> float:
    return float(page.locator("[data-bits]").get_attribute("data-bits"))


def grey(images: np.ndarray) -> np.ndarray:
    return grid(images)[..., 0]


# Drawing


def test_every_control_of_a_draw(page, studio: Studio) -> None:
    shown = pixels(page.get_by_role("img", name="16 images drawn"))
    np.testing.assert_array_equal(shown, grey(draw(studio, Wish()).pixels))
    fill(page, "Temperature", 0.3)
    fill(page, "Seed", 5)
    fill(page, "Number of images", 4)
    image = page.get_by_role("img", name="4 images drawn at temperature 0.3 with seed 5")
    expected = draw(studio, Wish(0.3, 5, 4))
    image.wait_for()
    np.testing.assert_array_equal(pixels(image), grey(expected.pixels))
    fill(page, "Image whose way from noise is shown", 3)
    last = page.get_by_role("img", name="Image 3, + level 1: the image")
    last.wait_for()
    np.testing.assert_array_equal(pixels(last), expected.pixels[2, ..., 0])
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download as PNG").first.click()
    with Image.open(saved.value.path()) as picture:
        np.testing.assert_array_equal(np.asarray(picture)[..., 0], grey(expected.pixels))
    assert saved.value.suggested_filename == "draw-5-temperature-0.3.png"


def test_a_slider_keeps_its_value_while_that_image_is_there() -> None:
    from glow_jax.demo.tabs import _one_of

    assert _one_of(4, 3)._constructor_args[0].get("value") is None
    assert _one_of(2, 3)._constructor_args[0]["value"] == 2


def test_another_seed_is_another_draw(page) -> None:
    press(page, "Another seed")
    page.wait_for_function("!document.querySelector('img[alt$=\"with seed 0\"]')")
    seed = page.get_by_role("spinbutton", name="Seed", exact=True).input_value()
    page.get_by_role("img", name=f"with seed {seed}").wait_for()


def test_a_slider_moves_by_keys(page) -> None:
    slider = page.get_by_role("slider", name="range slider for Temperature")
    slider.focus()
    slider.press("ArrowRight")
    page.get_by_role("img", name="at temperature 0.75").wait_for()


def test_a_space_of_a_conditional_run_takes_the_class(browser, randomise, tmp_path: Path) -> None:
    """As converted from openai/glow: edge bias, and conditional on the class."""
    run = digits_run(tmp_path / "run", "conditional_edge_bias", randomise)
    studio = studio_of(run)
    with serving_space(run, tmp_path / "kept", tmp_path / "space") as address:
        page = opened(browser, (address, tmp_path), DESKTOP)
        image = page.get_by_role("img", name="16 images drawn")
        in_turn = pixels(image)
        np.testing.assert_array_equal(in_turn, grey(draw(studio, Wish()).pixels))
        before = image.get_attribute("src")
        page.get_by_role("combobox", name="Class").click()
        page.get_by_role("option", name="7", exact=True).click()
        page.wait_for_function(
            "before => document.querySelector('img[alt^=\"16 images\"]').src !== before", arg=before
        )
        expected = draw(studio, Wish(classes=[7])).pixels
        np.testing.assert_array_equal(pixels(image), grey(expected))
        tab(page, "Your image")
        fill(page, "Test image, 0 to 359", 3)
        press(page, "Look at the test image")
        page.get_by_role("img", name="test image 3", exact=True).wait_for()
        found = evaluate(studio.run, images_of(studio)).likelihood.bits_per_dim
        assert bits(page) == pytest.approx(found[3], abs=1e-5)
        page.context.close()


def test_a_run_of_several_classes_in_the_browser(browser, randomise, tmp_path: Path) -> None:
    """Chosen one after the other, gone again, for draws and for a test image; then a direction."""
    run = several_run(tmp_path / "run", randomise)
    studio = studio_of(run)
    with serving(run, tmp_path / "kept") as address:
        page = opened(browser, (address, tmp_path), DESKTOP)
        for name in ("8", "14"):
            page.get_by_role("checkbox", name=name, exact=True).check()
        image = page.get_by_role("img", name="with seed 0: 8, 14")
        image.wait_for()
        expected = draw(studio, Wish(classes=[8, 14])).pixels
        np.testing.assert_array_equal(pixels(image), grey(expected))
        spoken = "16 images drawn at temperature 0.7 with seed 0: 8, 14."
        page.locator("#said", has_text=spoken).wait_for(state="attached")
        tab(page, "Your image")
        press(page, "Look at the test image")
        page.get_by_role("img", name="test image 0", exact=True).wait_for()
        found = evaluate(studio.run, images_of(studio)).likelihood.bits_per_dim
        assert bits(page) == pytest.approx(found[0], abs=1e-5)
        tab(page, "Edit")
        assert page.get_by_role("combobox", name="Direction 1").count() == 0
        page.get_by_role("button", name="Compute a direction").click()
        page.get_by_role("combobox", name="To images of").click()
        page.get_by_role("option", name="14", exact=True).click()
        press(page, "Compute the direction")
        page.get_by_text("it can be chosen as a direction now").first.wait_for()
        press(page, "Take as first image")
        page.get_by_role("img", name="The edited image").wait_for()
        start = frame(page)
        fill(page, "Strength along direction 1", 3)
        frame_after(page, start)
        assert list(studio_of(run).directions) == ["14"]
        page.context.close()


# Looking


def test_bits_of_test_images_are_those_of_the_evaluation(page, studio: Studio) -> None:
    tab(page, "Your image")
    found = evaluate(studio.run, images_of(studio)).likelihood.bits_per_dim
    for number in (0, 17):
        fill(page, "Test image, 0 to 359", number)
        press(page, "Look at the test image")
        page.get_by_role("img", name=f"test image {number}", exact=True).wait_for()
        assert bits(page) == pytest.approx(found[number], abs=1e-5)


def picture_file(folder: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "photograph.png")
    return folder / "photograph.png"


def test_bits_of_an_upload_are_the_model_s_and_nothing_is_kept(
    page, studio: Studio, server, run: Path, tmp_path: Path
) -> None:
    before = sorted(run.rglob("*"))
    path = picture_file(tmp_path)
    tab(page, "Your image")
    page.get_by_label("A picture file").set_input_files(path)
    press(page, "Look at this file")
    page.get_by_role("img", name="your picture").wait_for()
    image = picture_from(studio, path.read_bytes(), ".png")
    x = dequantized(studio.model, image[None], np.zeros(1, np.uint32))
    assert bits(page) == pytest.approx(float(studio.model.bits_per_dim(x)[0]), abs=1e-5)
    assert [kept for kept in server[1].rglob("*") if kept.is_file()] == []
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<script>alert(1)</script>", b"\x80\x04."])
def test_a_hostile_upload_is_one_sentence(page, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "<b>x.png").write_bytes(content)
    tab(page, "Your image")
    page.get_by_label("A picture file").set_input_files(tmp_path / "<b>x.png")
    press(page, "Look at this file")
    sentence = page.get_by_role("alert").first.inner_text()
    assert sentence.startswith("This file is no picture that can be read")
    press(page, "Look at the test image")
    page.get_by_role("img", name="test image 0", exact=True).wait_for()


def test_a_drawing_by_mouse_and_by_keys(page, studio: Studio) -> None:
    tab(page, "Your image")
    press(page, "Look at the drawing")
    assert "There is no picture yet" in page.get_by_role("alert").first.inner_text()
    pad = page.get_by_label("Drawing pad")
    box = pad.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 160, steps=5)
    page.mouse.up()
    press(page, "Look at the drawing")
    drawing = page.get_by_role("img", name="your drawing")
    drawing.wait_for()
    by_mouse = pixels(drawing)
    assert by_mouse[3, 3] > 100
    assert by_mouse[0, 7] == 0
    press(page, "Clear")
    pad.focus()
    for key in (" ", *["ArrowRight"] * 8):
        pad.press(key)
    first = bits(page)
    press(page, "Look at the drawing")
    page.wait_for_function(f"document.querySelector('[data-bits]').dataset.bits !== '{first!r}'")
    by_keys = pixels(drawing)
    assert by_keys[3:5, 4:6].min() > 50
    assert by_keys[0].max() == 0


def test_one_level_is_drawn_anew_by_its_controls(page) -> None:
    tab(page, "Your image")
    press(page, "Look at the test image")
    seen = []
    image = page.get_by_role("img", name="drawn anew, draw 1")
    image.wait_for()
    seen.append(pixels(image))
    changes = [
        lambda: page.get_by_role("radio", name="2").check(),
        lambda: fill(page, "Temperature of the new draws", 1.5),
        lambda: fill(page, "Seed of the new draws", 9),
    ]
    for change in changes:
        before = image.get_attribute("src")
        change()
        page.wait_for_function(
            "before => document.querySelector('img[alt$=\"drawn anew, draw 1\"]').src !== before",
            arg=before,
        )
        seen.append(pixels(image))
    assert len({image.tobytes() for image in seen}) == 4


def test_training_images_are_measured_with_a_bar_and_can_be_stopped(page, run: Path) -> None:
    tab(page, "Your image")
    press(page, "Look at the test image")
    page.get_by_text("The training images are not measured yet").first.wait_for()
    page.get_by_role("button", name="Measure the training images").click()
    press(page, "Measure")
    page.get_by_role("progressbar", name="Measurements of training images").wait_for()
    press(page, "Stop")
    page.get_by_text("Stopped. What was measured is kept.").first.wait_for()
    press(page, "Measure")
    page.get_by_text("Measured and kept in the run").first.wait_for()
    press(page, "Look at the test image")
    page.get_by_role("img", name="Histogram of bits per dimension of 1437").wait_for()
    page.get_by_text(re.compile(r"^Likelier than \d+ of 100 training images: ")).first.wait_for()
    assert page.get_by_role("table", name="Scores beside").count() == 1
    assert list((run / "ood" / "measured").glob("digits-training/likelihood.npz"))


# Editing


@pytest.fixture
def editing(page) -> Any:
    tab(page, "Edit")
    press(page, "Take as first image")
    press(page, "Take as second image")
    page.get_by_role("img", name="second: test image 1").wait_for()
    page.get_by_role("img", name="The edited image").wait_for()
    return page


def test_every_slider_changes_the_image_and_comes_back(editing, studio: Studio) -> None:
    page, start = editing, frame(editing)
    first, second = (from_test_split(studio, number)[0][..., 0] for number in (0, 1))
    # Of the 4 bits that the model keeps.
    np.testing.assert_array_equal(start // 17, first >> 4)
    for name, value in (
        ("Mix", 0.5),
        ("Strength along direction 1", 2.0),
        ("Strength along direction 2", -2.0),
    ):
        fill(page, name, value)
        frame_after(page, start)
        changed = frame(page)
        fill(page, name, 0)
        np.testing.assert_array_equal(frame_after(page, changed), start)
    fill(page, "Mix", 1)
    np.testing.assert_array_equal(frame_after(page, start) // 17, second >> 4)
    page.get_by_role("button", name="Reset to default value").locator("visible=true").first.click()
    np.testing.assert_array_equal(frame_after(page, second), start)


def test_levels_and_directions_are_chosen(editing) -> None:
    page, start = editing, frame(editing)
    fill(page, "Strength along direction 1", 3)
    both = frame_after(page, start)
    page.get_by_role("checkbox", name="1").uncheck()
    top = frame_after(page, both)
    page.get_by_role("checkbox", name="2").uncheck()
    np.testing.assert_array_equal(frame_after(page, top), start)
    page.get_by_role("checkbox", name="1").check()
    page.get_by_role("checkbox", name="2").check()
    frame_after(page, start)
    page.get_by_role("combobox", name="Direction 1").click()
    page.get_by_role("option", name="8").click()
    assert not np.array_equal(frame_after(page, both), start)


def test_images_to_edit_come_from_draws_and_from_the_visitor(editing, studio: Studio) -> None:
    page, start = editing, frame(editing)
    page.get_by_role("radio", name="a draw, by its seed").first.check()
    fill(page, "Number or seed of the first image", 7)
    press(page, "Take as first image")
    expected = draw(studio, Wish(seed=7, number=1)).pixels[0, ..., 0]
    np.testing.assert_array_equal(frame_after(page, start), expected)
    page.get_by_role("radio", name="the image of Your image").first.check()
    press(page, "Take as first image")
    assert "no image of your own yet" in page.get_by_role("alert").first.inner_text()
    tab(page, "Your image")
    fill(page, "Test image, 0 to 359", 5)
    press(page, "Look at the test image")
    page.get_by_role("img", name="test image 5", exact=True).wait_for()
    tab(page, "Edit")
    press(page, "Take as first image")
    page.get_by_role("img", name="first: test image 5").wait_for()


def test_a_walk_becomes_a_video_and_can_be_stopped(editing) -> None:
    page = editing
    page.get_by_role("button", name="A short video of a walk").click()
    press(page, "Make the video")
    image = page.get_by_role("img", name="A walk of 46 frames")
    image.wait_for()
    with Image.open(io.BytesIO(base64.b64decode(image.get_attribute("src").split(",")[1]))) as gif:
        assert (gif.format, getattr(gif, "n_frames", 1)) == ("GIF", 46)
    page.get_by_role("radio", name="MP4").check()
    page.get_by_role("combobox", name="Walk").click()
    page.get_by_role("option", name="along 3").click()
    press(page, "Make the video")
    film = page.get_by_label("A walk of 46 frames")
    page.locator("video").wait_for()
    assert base64.b64decode(film.get_attribute("src").split(",")[1])[4:8] == b"ftyp"
    press(page, "Stop the video")
    page.get_by_text("Stopped.").first.wait_for()


# Visitors


def test_twenty_visitors_at_once_each_get_their_own(browser, server, studio: Studio) -> None:
    pages = [opened(browser, server, DESKTOP) for _ in range(VISITORS)]
    for seed, page in enumerate(pages, start=100):
        fill(page, "Number of images", 2)
        fill(page, "Seed", seed)
        tab(page, "Edit")
        fill(page, "Number or seed of the first image", seed)
        press(page, "Take as first image")
    for seed, page in enumerate(pages, start=100):
        page.get_by_role("img", name=f"first: test image {seed}").wait_for()
        page.get_by_role("img", name="The edited image").wait_for()
        expected = from_test_split(studio, seed)[0][..., 0] >> 4
        np.testing.assert_array_equal(frame(page) // 17, expected)
        tab(page, "Draw")
        image = page.get_by_role("img", name=f"2 images drawn at temperature 0.7 with seed {seed}")
        image.wait_for()
        drawn = draw(studio, Wish(0.7, seed, 2)).pixels
        np.testing.assert_array_equal(pixels(image), grey(drawn))
        page.context.close()


def test_only_this_machine_reaches_the_page(server) -> None:
    port = int(server[0].rstrip("/").rpartition(":")[2])
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    ]
    assert listening == [f"0100007F:{port:04X}"]


def test_a_request_of_any_length_is_refused_before_it_is_read(server) -> None:
    request = urllib.request.Request(
        f"{server[0]}gradio_api/queue/join", b"{}", {"Content-Length": str(MOST_BYTES + 1)}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 413
    refused.value.close()


# Accessibility


@pytest.mark.skipif(not AXE, reason="npm install axe-core, and GLOW_AXE=.../axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_serious_fault(browser, server, size, scheme: str) -> None:
    page = opened(browser, server, size, color_scheme=scheme)
    page.evaluate(Path(AXE).read_text())
    tab(page, "Your image")
    press(page, "Look at the test image")
    page.get_by_role("img", name="drawn anew, draw 1").wait_for()
    tab(page, "Edit")
    press(page, "Take as first image")
    page.get_by_role("img", name="The edited image").wait_for()
    page.get_by_role("button", name="A short video of a walk").click()
    faults = []
    for name in ("Draw", "Your image", "Edit"):
        tab(page, name)
        page.wait_for_timeout(400)  # until the page has faded in
        found = page.evaluate("async () => (await axe.run(document)).violations")
        faults += [
            (name, fault["id"], [node["html"][:200] for node in fault["nodes"]])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is wider than the screen"
    assert faults == []
    assert page.strangers == []
    page.context.close()


# Walks without a page


@pytest.mark.parametrize("ending", [".gif", ".mp4", ".png"])
def test_a_walk_by_command(ending: str, run: Path, tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / f"walk{ending}"
    words = ("--start", "seed:1", "--direction", "3", "--frames", 5, "--levels", 2)
    run_script(walk.main, monkeypatch, run, *words, "--output", output)
    if ending == ".mp4":
        assert output.read_bytes()[4:8] == b"ftyp"
        return
    with Image.open(output) as picture:
        assert getattr(picture, "n_frames", 1) == (8 if ending == ".gif" else 1)
        width = 5 * 9 + 1 if ending == ".png" else 320
        assert picture.width == width
