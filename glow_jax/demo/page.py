"""The page, by gradio: what stands where, and which control changes what. Nothing is computed here.

The page asks nothing of the internet: its fonts are the visitor's, gradio's makers hear nothing.
"""

import os
import threading
from collections.abc import Sequence
from importlib.resources import files
from typing import Literal, TypedDict

# Before gradio is imported: it would tell its makers of every start.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr  # pyright: ignore[reportMissingImports]  # an extra
from gradio.themes import Base  # pyright: ignore[reportMissingImports]
from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]

from glow_jax.demo import views
from glow_jax.demo.desk import ARC, IN_TURN, STRENGTHS, Desk
from glow_jax.demo.drawing import HOTTEST, MOST
from glow_jax.demo.editing import AT_ONCE
from glow_jax.demo.limits import Bounded
from glow_jax.errors import GlowError

_FONTS = ["system-ui", "sans-serif"]
_LARGEST_SEED = 2**32 - 1
# How long latents stay in memory after they were last set.
_SECONDS_KEPT = 1800
_VISITORS_AT_ONCE = 2


class _How(TypedDict, total=False):
    """How a control's event is answered."""

    api_visibility: Literal["private"]
    show_progress: Literal["hidden"]
    trigger_mode: Literal["always_last"]


_PRIVATE: _How = {"api_visibility": "private"}
_QUIET: _How = {**_PRIVATE, "show_progress": "hidden"}
# While a slider moves, only its last place counts.
_QUICK: _How = {**_QUIET, "trigger_mode": "always_last"}
_READ_FILE = "async (address, name, chosen) => [...(await glowPad.file()), chosen]"
_READ_PAD = "(address, name, chosen) => [glowPad.address(), '', chosen]"
_ANOTHER = f"() => Math.floor(Math.random() * {_LARGEST_SEED})"


def build(desk: Desk) -> gr.Blocks:
    """Build the page of a run."""
    with gr.Blocks(title="Glow", analytics_enabled=False) as page:
        gr.HTML(views.of_run(desk.studio))
        with gr.Tabs():
            with gr.Tab("Draw", id="draw"):
                _drawing(page, desk)
            with gr.Tab("Your image", id="image"):
                mine = _looking(desk)
            with gr.Tab("Edit", id="edit"):
                _editing(desk, mine)
    return page


def launch(page: gr.Blocks, *, host: str, port: int | None) -> str:
    """Open the page and return its address, while it answers in the background.

    Args:
        page: the page.
        host: the address to listen at: 127.0.0.1 is for this machine alone.
        port: the port; None takes the first free one from 7860.

    Raises:
        GlowError: the address cannot be listened at.
    """
    sources = files("glow_jax.demo")
    page.queue(default_concurrency_limit=_VISITORS_AT_ONCE)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            theme=_theme(),
            css=(sources / "page.css").read_text(),
            head=f"<script>{(sources / 'page.js').read_text()}</script>",
            footer_links=[],
            share=False,
            ssr_mode=False,
            max_file_size=1024,  # nothing is uploaded: pictures come as text, and are never files
            app_kwargs={"middleware": [Middleware(Bounded)]},
            quiet=True,
        )
    except OSError as error:
        raise GlowError(f"The page cannot be opened at {host}: {error}.") from None
    return address


def _theme() -> Base:
    """Quiet, with the visitor's own fonts, and with small letters dark enough to read."""
    plain = Base(font=_FONTS, font_mono=_FONTS)
    return plain.set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )


def wait(page: gr.Blocks) -> None:
    """Wait for Ctrl-C, and close the page.

    Raises:
        KeyboardInterrupt: as soon as it comes.
    """
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def _drawing(page: gr.Blocks, desk: Desk) -> None:
    temperature = gr.Slider(
        0,
        HOTTEST,
        0.7,
        step=0.05,
        label="Temperature",
        info="0 is the mean image, 1 the model's own",
    )
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=_LARGEST_SEED)
        another = gr.Button("Another seed")
    chosen = _classes(desk, in_turn=True)
    number = gr.Slider(1, MOST, 16, step=1, label="Number of images")
    draws = gr.HTML()
    which = gr.Slider(1, MOST, 1, step=1, label="Image whose way from noise is shown")
    way = gr.HTML()
    controls = [temperature, seed, number, chosen]
    changes = [page.load, temperature.change, seed.change, number.change, chosen.change]
    gr.on(changes, desk.draws, controls, draws, **_QUICK)
    gr.on([*changes, which.change], desk.way, [*controls, which], way, **_QUICK)
    another.click(None, None, seed, js=_ANOTHER)


def _classes(desk: Desk, *, in_turn: bool = False) -> gr.Dropdown:
    """The class of an image; not to be seen where the model takes none."""
    config = desk.studio.model.config
    choices = list(zip(desk.studio.class_names, range(len(desk.studio.class_names)), strict=True))
    if in_turn:
        choices = [("all in turn", IN_TURN), *choices]
    several = config.multi_class
    first = choices[0][1] if choices else None
    return gr.Dropdown(
        choices,
        value=([IN_TURN] if in_turn else []) if several else first,
        multiselect=several,
        label="Attributes" if several else "Class",
        visible=config.y_condition,
    )


def _levels(desk: Desk) -> list[tuple[str, int]]:
    return [(str(level), level) for level in range(1, desk.studio.model.config.L + 1)]


def _looking(desk: Desk) -> gr.State:
    studio = desk.studio
    mine = gr.State(None, time_to_live=_SECONDS_KEPT)
    address, name = gr.Textbox(visible=False), gr.Textbox(visible=False)
    chosen = _classes(desk)
    with gr.Row():
        with gr.Column(min_width=260):
            gr.HTML(views.of_file_control())
            with_file = gr.Button("Look at this file")
        with gr.Column(min_width=260):
            gr.HTML(views.of_pad(studio))
            with gr.Row():
                with_pad = gr.Button("Look at the drawing")
                clear = gr.Button("Clear")
        with gr.Column(min_width=260, visible=studio.dataset is not None):
            most = len(studio.dataset.test) - 1 if studio.dataset else 0
            test = gr.Number(
                0, label=f"Test image, 0 to {most}", precision=0, minimum=0, maximum=most
            )
            with_test = gr.Button("Look at the test image")
    found = gr.HTML()
    gr.HTML(views.HEADING_ANEW)
    levels = _levels(desk)
    level = gr.Radio(levels, value=1, label="Level", info="1 is the finest")
    with gr.Row():
        heat = gr.Slider(0, HOTTEST, 0.7, step=0.05, label="Temperature of the new draws")
        seed = gr.Number(0, label="Seed of the new draws", precision=0, minimum=0)
    anew = gr.HTML()
    with gr.Accordion("Measure the training images", open=False, visible=studio.own_dataset):
        gr.HTML(views.ABOUT_MEASURING)
        with gr.Row():
            measure, stop = gr.Button("Measure"), gr.Button("Stop")
        measured = gr.HTML()
    of_picture = [address, name, chosen]
    with_file.click(desk.picture, of_picture, [mine, found], js=_READ_FILE, **_PRIVATE)
    with_pad.click(desk.picture, of_picture, [mine, found], js=_READ_PAD, **_PRIVATE)
    with_test.click(desk.test, test, [mine, found], **_PRIVATE)
    clear.click(None, None, None, js="() => glowPad.clear()")
    gr.on(
        [mine.change, level.change, heat.change, seed.change],
        desk.anew,
        [mine, level, heat, seed],
        anew,
        **_QUICK,
    )
    measure.click(desk.measure, None, measured, **_QUIET)
    stop.click(desk.halt, None, None, queue=False, **_PRIVATE)
    return mine


def _editing(desk: Desk, mine: gr.State) -> None:
    studio = desk.studio
    first, second = (gr.State(None, time_to_live=_SECONDS_KEPT) for _ in range(2))
    sources = [("a draw, by its seed", "draw"), ("the image of Your image", "mine")]
    if studio.dataset is not None:
        sources.insert(0, ("a test image, by its number", "test"))
    chosen = _classes(desk)
    picks = []
    with gr.Row():
        for number, name in enumerate(("First", "Second")):
            with gr.Column(min_width=260):
                source = gr.Radio(sources, value=sources[0][1], label=f"{name} image")
                place = gr.Number(
                    number, label=f"Number or seed of the {name.lower()} image", precision=0
                )
                picks.append((source, place, gr.Button(f"Take as {name.lower()} image"), gr.HTML()))
    ends = gr.HTML()
    frame = gr.HTML(elem_id="frame")
    mix = gr.Slider(0, 1, 0, step=0.02, label="Mix", info="0 is the first image, 1 the second")
    slots = _slots(list(studio.directions))
    names = _levels(desk)
    levels = gr.CheckboxGroup(
        names, value=[n for _, n in names], label="Levels that change", info="1 is the finest"
    )
    for state, (source, place, take, said) in zip((first, second), picks, strict=True):
        take.click(desk.end, [source, place, chosen, mine], [state, said], **_PRIVATE)
    gr.on([first.change, second.change], desk.ends, [first, second], ends, **_QUICK)
    moves = [mix.change, levels.change, *(slot.change for slot in slots)]
    gr.on(
        [first.change, second.change, *moves],
        desk.frame,
        [first, second, mix, levels, *slots],
        frame,
        **_QUICK,
    )
    _walking(desk, [first, second], levels)


def _slots(names: Sequence[str]) -> list[gr.Dropdown | gr.Slider]:
    """A direction and how far to go, in turn."""
    if not names:
        gr.HTML(views.NO_DIRECTIONS)
    slots: list[gr.Dropdown | gr.Slider] = []
    for number, name in enumerate(names[:AT_ONCE], start=1):
        with gr.Row():
            slots.append(gr.Dropdown(names, value=name, label=f"Direction {number}"))
            slots.append(
                gr.Slider(*STRENGTHS, 0, step=0.05, label=f"Strength along direction {number}")
            )
    return slots


def _walking(desk: Desk, ends: Sequence[gr.State], levels: gr.CheckboxGroup) -> None:
    with gr.Accordion("A short video of a walk", open=False):
        ways = [("from the first image to the second", ARC)]
        ways += [(f"along {name}", name) for name in desk.studio.directions]
        along = gr.Dropdown(ways, value=ARC, label="Walk")
        far = gr.Slider(0, STRENGTHS[1], 1, step=0.05, label="Strength of a walk along a direction")
        ending = gr.Radio([("GIF", ".gif"), ("MP4", ".mp4")], value=".gif", label="Format")
        with gr.Row():
            make, stop = gr.Button("Make the video"), gr.Button("Stop the video")
        film = gr.HTML()
    making = make.click(desk.film, [*ends, along, far, levels, ending], film, **_QUIET)
    stop.click(lambda: views.STOPPED, None, film, cancels=[making], **_PRIVATE)
