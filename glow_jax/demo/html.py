"""Pictures, numbers and a histogram as HTML that needs no file, and that a screen reader reads.

Pictures are `data:` addresses, so that nothing of a visitor's is kept for the page.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from glow_jax.evaluation.png import png
from glow_jax.evaluation.samples import grid

ALOUD = " data-aloud"
"""The attribute of what a screen reader says as soon as it appears."""

_SIDE = 192
_WIDTH, _HEIGHT, _BELOW = 640, 170, 52
_BINS = 60
# Beyond these quantiles of the training images, bars are too low to see.
_SHOWN = (0.0005, 0.9995)


def address(content: bytes, kind: str) -> str:
    """A file as a `data:` address; `kind` is its type, such as image/png."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(pixels: np.ndarray, says: str, *, side: int = _SIDE) -> str:
    """An image, uint8 (H, W, C), enlarged without blur.

    Args:
        pixels: grey or colours; of more than three channels, the first three are shown.
        says: what is to be read in its place.
        side: of the larger side, in the page's pixels.
    """
    shown = pixels[..., :1] if pixels.shape[2] == 2 else pixels[..., :3]
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    return (
        f'<img class="pixels" src="{address(png(shown), "image/png")}" alt="{escape(says)}" '
        f'width="{round(width * scale)}" height="{round(height * scale)}">'
    )


def figure(pixels: np.ndarray, caption: str, *, says: str = "", side: int = _SIDE) -> str:
    """An image with a caption below; `says` is its text for a screen reader, if that is longer."""
    image = picture(pixels, says or caption, side=side)
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def row(figures: Sequence[str]) -> str:
    """Figures beside each other, which wrap on a narrow page."""
    return f'<div class="row">{"".join(figures)}</div>'


def gallery(pixels: np.ndarray, says: str) -> str:
    """Many images as one picture, uint8 (N, H, W, C)."""
    together = grid(pixels)
    return picture(together, says, side=max(320, min(560, 4 * max(together.shape[:2]))))


def download(content: bytes, kind: str, name: str, text: str) -> str:
    """A link that saves a file."""
    where = address(content, kind)
    return f'<a class="download" href="{where}" download="{escape(name)}">{escape(text)}</a>'


def moving(content: bytes, ending: str, says: str) -> str:
    """A short video that repeats."""
    if ending == ".gif":
        return f'<img class="pixels" src="{address(content, "image/gif")}" alt="{escape(says)}">'
    where = address(content, "video/mp4")
    return (
        f'<video src="{where}" aria-label="{escape(says)}" controls loop muted autoplay '
        "playsinline></video>"
    )


def heading(text: str) -> str:
    """The heading of a part of a tab."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, *, kind: str = "", aloud: bool = False) -> str:
    """Text.

    Args:
        text: the text.
        kind: its class in the page's style.
        aloud: whether a screen reader says it as soon as it appears; `page.js` sees to that.
    """
    style = f' class="{escape(kind)}"' if kind else ""
    return f"<p{style}{ALOUD if aloud else ''}>{escape(text)}</p>"


def error(text: str) -> str:
    """A sentence about what went wrong, which a screen reader says at once."""
    return f'<p class="error" role="alert">{escape(text)}</p>'


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scrolls" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def histogram(training: np.ndarray, others: Mapping[str, np.ndarray], here: float) -> str:
    """Bits/dim of training images as bars, of others as lines, and a mark at one image.

    The axis goes at most one range of the training images beyond them, to either side: a set of
    noise can be anywhere. What lies further out is drawn at the end.

    Args:
        training: (N,), not empty.
        others: by the names of their images.
        here: bits/dim of the image.
    """
    sets = {name: values[np.isfinite(values)] for name, values in others.items()}
    sets = {name: values for name, values in sets.items() if len(values)}
    training = training[np.isfinite(training)]
    first, last = np.quantile(training, _SHOWN)
    further = (last - first) or 1.0
    seen = here if np.isfinite(here) else last + further
    ends = [seen, *(np.quantile(values, _SHOWN) for values in (training, *sets.values()))]
    low, high = np.clip(
        [min(map(np.min, ends)), max(map(np.max, ends))], first - further, last + further
    )
    margin = 0.03 * (high - low) or 1.0
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    shares = [_shares(values, edges) for values in (training, *sets.values())]
    top = max(float(np.max(share)) for share in shares)

    def place(value: float) -> float:
        inside = min(max(value, edges[0]), edges[-1])
        return _WIDTH * (inside - edges[0]) / (edges[-1] - edges[0])

    wide = _WIDTH / _BINS
    bars = "".join(
        f'<rect x="{i * wide:.1f}" y="{_HEIGHT * (1 - share / top):.1f}" width="{wide:.1f}" '
        f'height="{_HEIGHT * share / top:.1f}"/>'
        for i, share in enumerate(shares[0])
    )
    lines = "".join(
        f'<polyline class="other{number % 3}" points="{_outline(share / top, wide)}"/>'
        for number, share in enumerate(shares[1:])
    )
    ticks = "".join(
        f'<text x="{place(value):.1f}" y="{_HEIGHT + 20}" text-anchor="middle">{value:g}</text>'
        for value in _round_numbers(float(edges[0]), float(edges[-1]))
    )
    unit = f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 46}" text-anchor="middle">bits/dim</text>'
    says = (
        f"Histogram of bits per dimension of {len(training)} training images, from "
        f"{training.min():.2f} to {training.max():.2f}, mean {training.mean():.2f}. This image is "
        f"at {here:.2f}."
    )
    names = "".join(
        f'<li class="other{number % 3}">of {len(values)} images of {escape(name)}, mean '
        f"{values.mean():.2f}</li>"
        for number, (name, values) in enumerate(sets.items())
    )
    return (
        f'<svg class="histogram" role="img" aria-label="{escape(says)}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT + _BELOW}"><g class="training">{bars}</g>{lines}'
        f'<line class="here" x1="{place(seen):.1f}" x2="{place(seen):.1f}" y1="0" '
        f'y2="{_HEIGHT}"/>{ticks}{unit}</svg>'
        f'<ul class="legend"><li class="training">bits/dim of {len(training)} training images, '
        f'mean {training.mean():.2f}</li>{names}<li class="here">this image, {here:.2f}</li></ul>'
    )


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)


def _outline(heights: np.ndarray, wide: float) -> str:
    tops = [f"{_HEIGHT * (1 - height):.1f}" for height in heights]
    return " ".join(f"{(i + 0.5) * wide:.1f},{y}" for i, y in enumerate(tops))


def _round_numbers(low: float, high: float) -> list[float]:
    """About five round numbers in a range."""
    rough = (high - low) / 5
    power = 10 ** np.floor(np.log10(rough))
    step = min((s for s in (1, 2, 5, 10) if s * power >= rough), default=10) * power
    first = np.ceil(low / step)
    # Zero is added so that there is no -0.
    return [round(float(n * step), 10) + 0.0 for n in np.arange(first, np.floor(high / step) + 1)]
