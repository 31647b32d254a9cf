"""What each control of the page does: values of controls to HTML, and to a visitor's latents.

A visitor's mistake is one sentence in the place of what was asked for.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal, ParamSpec

import numpy as np

from glow_jax.demo import html, views
from glow_jax.demo.directions import CLASSES, groups_of, keep_between
from glow_jax.demo.drawing import Wish, draw, noise_of, way_of
from glow_jax.demo.editing import BATCH, Edit, arc, edited, walk, way_along
from glow_jax.demo.incoming import content_of, picture_from
from glow_jax.demo.looking import Encoded, drawn_anew, look
from glow_jax.demo.standing import known_of, measure_training
from glow_jax.demo.studio import Studio, decoded_pixels, from_test_split
from glow_jax.demo.values import amounts_of, levels_from_0, number_of, whole_of
from glow_jax.demo.video import there_and_back, video
from glow_jax.errors import GlowError
from glow_jax.evaluation.samples import one_label

_Values = ParamSpec("_Values")

Source = Literal["test", "draw", "mine"]
"""Where an image to edit comes from: the test split, a draw, or the second page."""

ARC = "\0arc"
"""The walk from the first image to the second; no direction has this name."""

IN_TURN = OTHERS = -1
"""What stands for all classes in turn, and for all images that are not of a class."""

_FRAMES = 24
# Of each of the two means.
_DIRECTION_IMAGES = 1000
_STRONGEST = 3.0
STRENGTHS = (-_STRONGEST, _STRONGEST)


@dataclass(frozen=True, eq=False)  # gradio hashes what it keeps for a session
class Held:
    """An image that a visitor edits: as it is, and as it is encoded."""

    pixels: np.ndarray
    encoded: Encoded


def _or_sentence(work: Callable[_Values, str]) -> Callable[_Values, str]:
    """Make a visitor's mistake a sentence."""

    @functools.wraps(work)
    def run(*values: _Values.args, **named: _Values.kwargs) -> str:
        try:
            return work(*values, **named)
        except GlowError as error:
            return html.error(str(error))

    return run


class Desk:
    """The page's controls for one run, for any number of visitors: it keeps nothing of theirs."""

    def __init__(self, studio: Studio):
        """Take a run that is ready."""
        self.studio = studio
        # One long work goes on for all visitors, whose results are the run's.
        self._working, self._halted = threading.Lock(), threading.Event()

    def warm(self) -> None:
        """Compile all programs, so that no visitor waits for them."""
        config = self.studio.model.config
        classes = [0] if config.y_condition else []
        wish = Wish(number=1, classes=classes or None)
        black = np.zeros(config.image_shape, np.uint8)
        encoded = look(self.studio, black, one_label(self.studio.model, classes)).encoded
        drawn = draw(self.studio, wish)
        way_of(self.studio, drawn.noise, drawn.y)
        edited(self.studio, encoded, encoded, Edit())
        walk(self.studio, encoded, encoded, [Edit()])
        drawn_anew(self.studio, encoded, 0, seed=0, temperature=1.0)

    # Drawing

    @_or_sentence
    def draws(self, temperature: float, seed: float, number: float, chosen: object) -> str:
        """The images of a draw."""
        wish = self._wish(temperature, seed, number, chosen)
        return views.of_draws(self.studio, wish, draw(self.studio, wish))

    @_or_sentence
    def way(
        self, temperature: float, seed: float, number: float, chosen: object, which: float
    ) -> str:
        """The way of one image of a draw from noise."""
        noise, y = noise_of(self.studio, self._wish(temperature, seed, number, chosen))
        place = min(whole_of(which, "The image"), len(noise[0])) - 1
        if place < 0:
            raise GlowError("Images of a draw are numbered from 1.")
        one = slice(place, place + 1)
        of_one = tuple(entry[one] for entry in noise)
        return views.of_way(way_of(self.studio, of_one, None if y is None else y[one]), place + 1)

    def _wish(self, temperature: float, seed: float, number: float, chosen: object) -> Wish:
        classes = self._classes(chosen)
        some = [label for label in classes if label != IN_TURN]
        in_turn = IN_TURN in classes and not some
        return Wish(
            number_of(temperature, "The temperature"),
            whole_of(seed, "The seed"),
            whole_of(number, "The number of images"),
            None if in_turn or not self.studio.model.config.y_condition else some,
        )

    def _classes(self, chosen: object) -> list[int]:
        """The classes of a control that has one value, or several.

        Raises:
            GlowError: there is no such class.
        """
        values = chosen if isinstance(chosen, list) else [chosen]
        classes = [int(value) for value in values if isinstance(value, int | float)]
        for number in classes:
            if not IN_TURN <= number < len(self.studio.class_names):
                raise GlowError(f"There is no class {number}.")
        return classes

    # Looking

    def picture(self, address: object, name: object, chosen: object) -> tuple[Held | None, str]:
        """Look at a picture that the browser sends: a file with its name, or a drawing."""
        try:
            ending = PurePath(name if isinstance(name, str) else "").suffix
            pixels = picture_from(self.studio, content_of(address), ending)
            title = "your picture" if name else "your drawing"
            return self._seen(pixels, one_label(self.studio.model, self._classes(chosen)), 0, title)
        except GlowError as error:
            return None, html.error(str(error))

    def test(self, number: float) -> tuple[Held | None, str]:
        """Look at a test image."""
        try:
            index = whole_of(number, "The test image")
            pixels, y = from_test_split(self.studio, index)
            return self._seen(pixels, y, index, f"test image {index}")
        except GlowError as error:
            return None, html.error(str(error))

    def _seen(
        self, pixels: np.ndarray, y: np.ndarray | None, index: int, title: str
    ) -> tuple[Held, str]:
        seen = look(self.studio, pixels, y, index=index, title=title)
        shown = views.of_image(self.studio, seen, known_of(self.studio))
        return Held(seen.pixels, seen.encoded), shown

    @_or_sentence
    def anew(self, held: Held | None, level: int, temperature: float, seed: float) -> str:
        """An image with one level drawn anew; levels count from 1."""
        if held is None:
            return views.CHOOSE_FIRST
        heat = number_of(temperature, "The temperature")
        number = whole_of(seed, "The seed")
        place = whole_of(level, "The level") - 1
        pixels = drawn_anew(self.studio, held.encoded, place, seed=number, temperature=heat)
        return views.of_redrawn(self.studio, pixels, place)

    def measure(self) -> Iterator[str]:
        """Measure the training images until `halt`; what is measured is kept."""
        yield from self._long(
            measure_training(self.studio),
            "Measurements of training images",
            stopped="Stopped. What was measured is kept.",
            done="Measured and kept in the run: look at an image again.",
        )

    def halt(self) -> None:
        """Stop the long work that goes on."""
        self._halted.set()

    def _long(
        self, steps: Generator[tuple[int, int], None, None], what: str, *, stopped: str, done: str
    ) -> Iterator[str]:
        """Work with a bar, until `halt`; only one at a time."""
        if not self._working.acquire(blocking=False):
            yield html.paragraph("Another long work goes on already: try again in a while.")
            return
        self._halted.clear()
        try:
            with contextlib.closing(steps):
                for count, total in steps:
                    if self._halted.is_set():
                        yield html.paragraph(stopped, aloud=True)
                        return
                    yield views.bar(count, total, what)
            yield html.paragraph(done, aloud=True)
        except GlowError as error:
            yield html.error(str(error))
        finally:
            self._working.release()

    # Editing

    def end(
        self, source: Source, number: float, chosen: object, mine: Held | None
    ) -> tuple[Held | None, str]:
        """An image to edit, and a sentence where there is none."""
        try:
            return self._end(source, number, chosen, mine), ""
        except GlowError as error:
            return None, html.error(str(error))

    def _end(self, source: Source, number: float, chosen: object, mine: Held | None) -> Held:
        if source == "mine":
            if mine is None:
                raise GlowError("There is no image of your own yet: choose one on that page.")
            return mine
        if source == "test":
            index = whole_of(number, "The test image")
            pixels, y = from_test_split(self.studio, index)
            seen = look(self.studio, pixels, y, index=index, title=f"test image {index}")
            return Held(seen.pixels, seen.encoded)
        noise, y = noise_of(self.studio, self._wish(0.7, number, 1, chosen))
        pixels = decoded_pixels(self.studio, noise, y)[0]
        return Held(pixels, Encoded(f"draw with seed {whole_of(number, 'The seed')}", noise, y))

    @_or_sentence
    def ends(self, first: Held | None, second: Held | None) -> str:
        """The images that are edited."""
        if first is None:
            return views.TAKE_FIRST
        titles = (first.encoded.title, second.encoded.title if second else "")
        return views.of_ends(first.pixels, second.pixels if second else None, titles)

    @_or_sentence
    def frame(
        self,
        first: Held | None,
        second: Held | None,
        mix: float,
        levels: Sequence[int],
        *slots: object,
    ) -> str:
        """One edit; `slots` are names of directions and, after each, how far to go."""
        if first is None:
            return ""
        edit = Edit(number_of(mix, "The mix"), amounts_of(slots), levels_from_0(levels))
        other = second.encoded if second else None
        return views.of_frame(edited(self.studio, first.encoded, other, edit))

    def film(
        self,
        first: Held | None,
        second: Held | None,
        along: str,
        strength: float,
        levels: Sequence[int],
        ending: str,
    ) -> Iterator[str]:
        """A short video of a walk: along the arc, or along a direction."""
        try:
            if first is None:
                raise GlowError("Choose a first image.")
            touched, far = levels_from_0(levels), number_of(strength, "The strength")
            edits = arc(_FRAMES, touched)
            if along != ARC:
                edits = way_along(along, far, _FRAMES, touched)
            other, parts = second.encoded if second else None, []
            for begin in range(0, len(edits), BATCH):
                yield views.bar(begin, len(edits), "Frames")
                parts.append(walk(self.studio, first.encoded, other, edits[begin : begin + BATCH]))
            frames = there_and_back(np.concatenate(parts))
            yield views.of_video(video(frames, ending), ending, len(frames))
        except GlowError as error:
            yield html.error(str(error))

    def direct(self, of: object, against: object) -> Iterator[str]:
        """Compute a direction from one class, or from all other images, to another; keep it."""
        yield from self._long(
            self._directed(of, against),
            "Images encoded",
            stopped="Stopped.",
            done="Kept in the run: it can be chosen as a direction now.",
        )

    def _directed(self, of: object, against: object) -> Generator[tuple[int, int], None, None]:
        ends = self._classes([of, against])
        if len(ends) != 2 or ends[0] == OTHERS:
            raise GlowError("A direction leads to a class: choose one.")
        there, here = (f"{CLASSES}{number}" if number != OTHERS else "" for number in ends)
        groups = groups_of(self.studio, there, here, most=_DIRECTION_IMAGES)
        found = yield from keep_between(self.studio, *groups)
        self.studio = replace(self.studio, directions={**self.studio.directions, found.name: found})
