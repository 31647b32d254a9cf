"""The tabs that draw and look, by gradio: what stands where, and which control changes what.

Nothing is computed here.
"""

from typing import Literal, TypedDict

import gradio as gr  # pyright: ignore[reportMissingImports]  # an extra

from glow_jax.demo import html, views
from glow_jax.demo.desk import IN_TURN, Desk
from glow_jax.demo.drawing import HOTTEST, MOST

SECONDS_KEPT = 1800
"""How long latents stay in memory after they were last set."""

_LARGEST_SEED = 2**32 - 1


class How(TypedDict, total=False):
    """How a control's event is answered."""

    api_visibility: Literal["private"]
    show_progress: Literal["hidden"]
    trigger_mode: Literal["always_last"]


PRIVATE: How = {"api_visibility": "private"}
QUIET: How = {**PRIVATE, "show_progress": "hidden"}
# While a slider moves, only its last place counts.
QUICK: How = {**QUIET, "trigger_mode": "always_last"}
_READ_FILE = "async (address, name, chosen) => [...(await glowPad.file()), chosen]"
_READ_PAD = "(address, name, chosen) => [glowPad.address(), '', chosen]"
_ANOTHER = f"() => Math.floor(Math.random() * {_LARGEST_SEED})"


def drawing(page: gr.Blocks, desk: Desk) -> None:
    """The tab that draws."""
    temperature = gr.Slider(
        0,
        HOTTEST,
        0.7,
        step=0.05,
        label="Temperature",
        info="standard deviation of the noise: at 0 all is at its mean, at 1 as in training",
    )
    with gr.Row(elem_classes="bottom"):
        seed = gr.Number(
            0,
            label="Seed",
            info="the same seed is the same noise",
            precision=0,
            minimum=0,
            maximum=_LARGEST_SEED,
        )
        another = gr.Button("Another seed")
    chosen = classes_of(desk, in_turn=True)
    number = gr.Slider(1, MOST, 16, step=1, label="Number of images")
    draws = gr.HTML()
    gr.HTML(html.heading("From noise to image"))
    which = gr.Slider(1, 16, 1, step=1, label="Image whose way from noise is shown")
    way = gr.HTML()
    controls = [temperature, seed, number, chosen]
    changes = [page.load, temperature.change, seed.change, number.change, chosen.change]
    gr.on(changes, desk.draws, controls, draws, **QUICK)
    gr.on([*changes, which.change], desk.way, [*controls, which], way, **QUICK)
    number.change(_one_of, [number, which], which, **QUICK)
    another.click(None, None, seed, js=_ANOTHER)


def _one_of(number: float, which: float) -> gr.Slider:
    """The slider that chooses one of so many images.

    It keeps its value while that image is still there: the visitor may have moved it meanwhile.
    """
    most, seen = max(number, 2), number > 1
    if which > number:
        return gr.Slider(value=number, maximum=most, visible=seen)
    return gr.Slider(maximum=most, visible=seen)


def classes_of(
    desk: Desk, of: str = "", *, in_turn: bool = False
) -> gr.Dropdown | gr.CheckboxGroup:
    """The class of an image, or its classes; not to be seen where the model takes none."""
    config = desk.studio.model.config
    choices = choices_of(desk)
    if in_turn:
        choices = [("all in turn", IN_TURN), *choices]
    if config.multi_class:
        return gr.CheckboxGroup(
            choices,
            value=[IN_TURN] if in_turn else [],
            label=f"Classes{of}",
            info="any number of them; all in turn counts where no class is chosen"
            if in_turn
            else "any number of them, or none",
        )
    first = choices[0][1] if choices else None
    return gr.Dropdown(choices, value=first, label=f"Class{of}", visible=config.y_condition)


def choices_of(desk: Desk) -> list[tuple[str, int]]:
    """The names of the classes, with their numbers."""
    return [(name, number) for number, name in enumerate(desk.studio.class_names)]


def level_choices(desk: Desk) -> list[tuple[str, int]]:
    """The levels of the model, counted from 1, the finest."""
    return [(str(level), level) for level in range(1, desk.studio.model.config.L + 1)]


def looking(desk: Desk) -> gr.State:
    """The tab that looks at a visitor's image, which it returns."""
    studio = desk.studio
    mine = gr.State(None, time_to_live=SECONDS_KEPT)
    address, name = gr.Textbox(visible=False), gr.Textbox(visible=False)
    chosen = classes_of(desk, " of a picture or drawing")
    with gr.Row():
        with gr.Column(min_width=260):
            gr.HTML(views.of_file_control())
            with_file = gr.Button("Look at this file")
        with gr.Column(min_width=260):
            gr.HTML(views.of_pad(studio))
            with gr.Row():
                with_pad = gr.Button("Look at the drawing", scale=3, min_width=180)
                clear = gr.Button("Clear", min_width=60)
        with gr.Column(min_width=260, visible=studio.dataset is not None):
            gr.HTML(html.heading("A test image"))
            most = len(studio.dataset.test) - 1 if studio.dataset else 0
            test = gr.Number(
                0, label=f"Test image, 0 to {most}", precision=0, minimum=0, maximum=most
            )
            with_test = gr.Button("Look at the test image")
    found = gr.HTML()
    _redrawing(desk, mine)
    with gr.Accordion("Measure the training images", open=False, visible=studio.own_dataset):
        gr.HTML(views.ABOUT_MEASURING)
        with gr.Row():
            measure, stop = gr.Button("Measure"), gr.Button("Stop")
        measured = gr.HTML()
    of_picture = [address, name, chosen]
    with_file.click(desk.picture, of_picture, [mine, found], js=_READ_FILE, **PRIVATE)
    with_pad.click(desk.picture, of_picture, [mine, found], js=_READ_PAD, **PRIVATE)
    with_test.click(desk.test, test, [mine, found], **PRIVATE)
    clear.click(None, None, None, js="() => glowPad.clear()")
    measure.click(desk.measure, None, measured, **QUIET)
    stop.click(desk.halt, None, None, queue=False, **PRIVATE)
    return mine


def _redrawing(desk: Desk, mine: gr.State) -> None:
    """One level of a visitor's image drawn anew."""
    gr.HTML(html.heading("One level drawn anew"))
    level = gr.Radio(level_choices(desk), value=1, label="Level", info="1 is the finest")
    with gr.Row():
        heat = gr.Slider(
            0, HOTTEST, 0.7, step=0.05, label="Temperature of the new draws", min_width=240
        )
        seed = gr.Number(
            0, label="Seed of the new draws", precision=0, minimum=0, maximum=_LARGEST_SEED
        )
    anew = gr.HTML(views.CHOOSE_FIRST)
    changes = [mine.change, level.change, heat.change, seed.change]
    gr.on(changes, desk.anew, [mine, level, heat, seed], anew, **QUICK)
