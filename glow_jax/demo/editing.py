"""Edits of encoded images: a mix of two, moved along directions, at chosen levels.

An image is encoded once. Each move of a slider decodes it once, by one compiled program.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.compiler import quick_jit
from glow_jax.demo.looking import Encoded
from glow_jax.demo.studio import BATCH, Studio
from glow_jax.errors import GlowError
from glow_jax.evaluation.samples import without_nan_to_pixels
from glow_jax.latents import Noise, at_levels, move, slerp
from glow_jax.model import Glow

AT_ONCE = 4
"""Directions that may be followed at once: the program is compiled for so many."""


@dataclass(frozen=True)
class Edit:
    """A change of an image. At no mix and no amount, the image stays as it is, in every pixel.

    Attributes:
        mix: how far to go to the second image along the arc: 0 stays, 1 is there.
        amounts: how far to go along each direction, by its name.
        levels: the levels that are touched, from 0, the finest; None touches all.
    """

    mix: float = 0.0
    amounts: Mapping[str, float] = field(default_factory=dict)
    levels: Sequence[int] | None = None


def edited(studio: Studio, first: Encoded, second: Encoded | None, edit: Edit) -> np.ndarray:
    """Decode one edit: uint8, (H, W, C); arguments and errors as for `walk`."""
    return _Editor(studio, first, second)([edit])[0]


def walk(
    studio: Studio,
    first: Encoded,
    second: Encoded | None,
    edits: Sequence[Edit],
    progress: Callable[[int], object] = lambda _: None,
) -> np.ndarray:
    """Decode a sequence of edits.

    Args:
        studio: the run.
        first: the image; its label stays.
        second: the image to mix it with; None if no edit mixes.
        edits: all at the same levels and along the same directions.
        progress: called after each batch with the number of its images.

    Returns:
        uint8, (N, H, W, C).

    Raises:
        GlowError: a direction or a level is not there, there are too many directions, or there is
            nothing to mix with.
    """
    editor, parts = _Editor(studio, first, second), []
    for begin in range(0, len(edits), BATCH):
        part = list(edits[begin : begin + BATCH])
        padded = part + [part[-1]] * (BATCH - len(part))
        parts.append(editor(padded)[: len(part)])
        progress(len(part))
    return np.concatenate(parts)


class _Editor:
    """Checks edits, and decodes them."""

    def __init__(self, studio: Studio, first: Encoded, second: Encoded | None):
        self._studio, self._first, self._second = studio, first, second

    def __call__(self, edits: Sequence[Edit]) -> np.ndarray:
        """Decode edits of the same levels and directions: uint8, (B, H, W, C)."""
        if self._second is None and any(edit.mix for edit in edits):
            raise GlowError("There is no second image to mix with: choose one.")
        names = list(dict.fromkeys(name for edit in edits for name in edit.amounts))
        amounts = np.zeros((len(edits), AT_ONCE), np.float32)
        ways = self._ways(names)
        for row, edit in zip(amounts, edits, strict=True):
            row[: len(names)] = [edit.amounts.get(name, 0) for name in names]
        mix = np.array([edit.mix for edit in edits], np.float32)
        other = self._second or self._first
        pixels = _decode_edits(
            self._studio.model,
            self._first.noise,
            other.noise,
            mix,
            ways,
            amounts,
            self._touched(edits[0].levels),
            self._first.y,
        )
        return np.asarray(pixels)

    def _ways(self, names: Sequence[str]) -> Noise:
        if len(names) > AT_ONCE:
            raise GlowError(f"{len(names)} directions are chosen; at most {AT_ONCE} go at once.")
        known = self._studio.directions
        for name in names:
            if name not in known:
                some = ", ".join(list(known)[:5]) or "none"
                raise GlowError(f"The run keeps no direction {name!r}; it keeps {some}.")
        chosen = [known[name].noise for name in names]
        empty = [np.zeros_like(entry) for entry in self._first.noise]
        return tuple(
            np.concatenate([*parts, *[zero] * (AT_ONCE - len(names))])
            for zero, *parts in zip(empty, *chosen, strict=True)
        )

    def _touched(self, levels: Sequence[int] | None) -> np.ndarray:
        count = self._studio.model.config.L
        if levels is None:
            return np.ones(count, bool)
        for level in levels:
            if not 0 <= level < count:
                raise GlowError(f"There is no level {level + 1}; the run has levels 1 to {count}.")
        return np.isin(np.arange(count), levels)


@quick_jit
def _decode_edits(
    model: Glow,
    first: Noise,
    second: Noise,
    mix: jax.Array,
    ways: Noise,
    amounts: jax.Array,
    touched: jax.Array,
    y: jax.Array | None,
) -> jax.Array:
    after = slerp(first, second, mix)
    for number in range(AT_ONCE):
        way = tuple(entry[number : number + 1] for entry in ways)
        after = move(after, way, amounts[:, number])
    noise = at_levels(first, after, touched)
    labels = None if y is None else jnp.broadcast_to(y, (len(mix), y.shape[1]))
    return without_nan_to_pixels(model, model.decode_noise(noise, labels))


def arc(frames: int, levels: Sequence[int] | None = None) -> list[Edit]:
    """From the first image to the second in equal steps."""
    return [Edit(mix=float(place), levels=levels) for place in np.linspace(0, 1, frames)]


def way_along(
    name: str, strength: float, frames: int, levels: Sequence[int] | None = None
) -> list[Edit]:
    """From -`strength` to `strength` along a direction, in equal steps."""
    places = np.linspace(-strength, strength, frames)
    return [Edit(amounts={name: float(place)}, levels=levels) for place in places]
