"""The tab that edits, by gradio: two images, directions, a video. Nothing is computed here."""

from collections.abc import Sequence

import gradio as gr  # pyright: ignore[reportMissingImports]  # an extra

from glow_jax.data.dataset import has_labels
from glow_jax.demo import views
from glow_jax.demo.desk import ARC, OTHERS, STRENGTHS, Desk
from glow_jax.demo.editing import AT_ONCE
from glow_jax.demo.tabs import (
    PRIVATE,
    QUICK,
    QUIET,
    SECONDS_KEPT,
    choices_of,
    classes_of,
    level_choices,
)


def editing(page: gr.Blocks, desk: Desk, mine: gr.State) -> None:
    """The tab that edits; `mine` is the image of the tab that looks."""
    first, second = (gr.State(None, time_to_live=SECONDS_KEPT) for _ in range(2))
    chosen = classes_of(desk, " of draws")
    with gr.Row():
        _end(desk, "first", first, chosen, mine)
        _end(desk, "second", second, chosen, mine)
    ends = gr.HTML(views.TAKE_FIRST)
    frame = gr.HTML(elem_id="frame")
    mix = gr.Slider(0, 1, 0, step=0.02, label="Mix", info="0 is the first image, 1 the second")
    slots = _Slots(desk)
    names = level_choices(desk)
    levels = gr.CheckboxGroup(
        names, value=[n for _, n in names], label="Levels that change", info="1 is the finest"
    )
    gr.on([first.change, second.change], desk.ends, [first, second], ends, **QUICK)
    moves = [mix.change, levels.change, *(slot.change for slot in slots.controls)]
    gr.on(
        [first.change, second.change, *moves],
        desk.frame,
        [first, second, mix, levels, *slots.controls],
        frame,
        **QUICK,
    )
    along = _walking(desk, [first, second], levels)
    _directing(page, desk, slots, along)


def _end(
    desk: Desk,
    name: str,
    state: gr.State,
    chosen: gr.Dropdown | gr.CheckboxGroup,
    mine: gr.State,
) -> None:
    """Where an image to edit comes from."""
    sources = [("a draw, by its seed", "draw"), ("the image of Your image", "mine")]
    if desk.studio.dataset is not None:
        sources.insert(0, ("a test image, by its number", "test"))
    with gr.Column(min_width=260):
        source = gr.Radio(sources, value=sources[0][1], label=f"{name.capitalize()} image")
        place = gr.Number(
            int(name == "second"), label=f"Number or seed of the {name} image", precision=0
        )
        take = gr.Button(f"Take as {name} image")
        said = gr.HTML()
    take.click(desk.end, [source, place, chosen, mine], [state, said], **PRIVATE)


class _Slots:
    """Directions and how far to go along each; as many can be seen as the run keeps."""

    def __init__(self, desk: Desk):
        self._desk = desk
        self.none = gr.HTML()
        self.rows: list[gr.Row] = []
        self.names: list[gr.Dropdown] = []
        self.controls: list[gr.Dropdown | gr.Slider] = []
        """A name and a strength, in turn."""
        for number in range(1, AT_ONCE + 1):
            with gr.Row(visible=False) as row:
                name = gr.Dropdown([], label=f"Direction {number}")
                far = gr.Slider(
                    *STRENGTHS, 0, step=0.05, label=f"Strength along direction {number}"
                )
            self.rows.append(row)
            self.names.append(name)
            self.controls += [name, far]

    def renewed(self, along: str, *chosen: str | None) -> list[object]:
        """The note, the rows, the directions and the walks, as the run is now."""
        known = list(self._desk.studio.directions)
        free = [name for name in known if name not in chosen]
        rows = [gr.Row(visible=number < len(known)) for number in range(AT_ONCE)]
        names = []
        for name in chosen:
            value = name if name in known else free.pop(0) if free else None
            names.append(gr.Dropdown(known, value=value))
        walks = [("from the first image to the second", ARC)]
        walks += [(f"along {name}", name) for name in known]
        note = "" if known else views.without_directions(can_compute=_can_compute(self._desk))
        return [note, *rows, *names, gr.Dropdown(walks, value=along)]


def _walking(desk: Desk, ends: Sequence[gr.State], levels: gr.CheckboxGroup) -> gr.Dropdown:
    """A short video; returns the control that says along what."""
    with gr.Accordion("A short video of a walk", open=False):
        along = gr.Dropdown([("from the first image to the second", ARC)], value=ARC, label="Walk")
        far = gr.Slider(
            0,
            STRENGTHS[1],
            1,
            step=0.05,
            label="Strength of a walk along a direction",
            info="from minus so much to so much; 1 is the difference of the means",
        )
        ending = gr.Radio([("GIF", ".gif"), ("MP4", ".mp4")], value=".gif", label="Format")
        with gr.Row():
            make, stop = gr.Button("Make the video"), gr.Button("Stop the video")
        film = gr.HTML()
    making = make.click(desk.film, [*ends, along, far, levels, ending], film, **QUIET)
    stop.click(lambda: views.STOPPED, None, film, cancels=[making], **PRIVATE)
    return along


def _can_compute(desk: Desk) -> bool:
    """Whether there are training images with classes."""
    dataset = desk.studio.dataset
    return dataset is not None and has_labels(dataset.train)


def _directing(page: gr.Blocks, desk: Desk, slots: _Slots, along: gr.Dropdown) -> None:
    """The computation of a direction, and what shows it."""
    choices = choices_of(desk)
    with gr.Accordion("Compute a direction", open=False, visible=_can_compute(desk)):
        gr.HTML(views.ABOUT_DIRECTIONS)
        with gr.Row():
            of = gr.Dropdown(
                choices, value=choices[0][1] if choices else None, label="To images of"
            )
            against = gr.Dropdown(
                [("all others", OTHERS), *choices], value=OTHERS, label="From images of"
            )
        with gr.Row():
            compute, stop = gr.Button("Compute the direction"), gr.Button("Stop computing")
        computed = gr.HTML()
    shown = [slots.none, *slots.rows, *slots.names, along]
    renewing = {"fn": slots.renewed, "inputs": [along, *slots.names], "outputs": shown, **QUIET}
    page.load(**renewing)
    compute.click(desk.direct, [of, against], computed, **QUIET).then(**renewing)
    stop.click(desk.halt, None, None, queue=False, **PRIVATE)
