"""What the page shows, as HTML, with what each number means beside it."""

import numpy as np

from glow_jax.demo import html
from glow_jax.demo.drawing import Drawn, Way, Wish
from glow_jax.demo.looking import Seen, share_of_levels
from glow_jax.demo.standing import Known, in_words, ranks_of
from glow_jax.demo.studio import Studio
from glow_jax.demo.video import FRAMES_PER_SECOND
from glow_jax.evaluation.png import png
from glow_jax.evaluation.samples import grid
from glow_jax.ood.complexity import CODECS

_KINDS = {".gif": "image/gif", ".mp4": "video/mp4"}


HEADING_ANEW = "<h2>One level drawn anew</h2>"
STOPPED = html.paragraph("Stopped.")
ABOUT_MEASURING = html.paragraph(
    "Bits/dim and file sizes of up to 10,000 training images are measured once, and kept. "
    "It can be stopped, and goes on where it stopped.",
    kind="note",
)
NO_DIRECTIONS = html.paragraph(
    "This run keeps no directions yet: glow-jax directions RUN computes them.", kind="note"
)


def of_run(studio: Studio) -> str:
    """The head of the page: what the model is."""
    config = studio.model.config
    height, width, channels = config.image_shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    labels = f", conditional on {config.y_classes} classes" if config.y_condition else ""
    about = (
        f"A Glow of {studio.training_name}: {kind} images of {height} x {width} with "
        f"{config.n_bits} bits{labels}; K = {config.K}, L = {config.L}, {studio.run.title}."
    )
    return f"<h1>Glow</h1>{html.paragraph(about, kind='note')}"


def of_file_control() -> str:
    """Where a visitor chooses a file, which the browser reads itself."""
    return (
        '<label for="file">A picture file</label><br>'
        '<input id="file" type="file" accept="image/*,.npy,.pgm,.ppm,.tga,.qoi"><p class="note">It '
        "is cut to a square, resized, measured and forgotten.</p>"
    )


def of_pad(studio: Studio) -> str:
    """Where a visitor draws: white on black where most images are dark, as digits are."""
    paper, ink = _paper_and_ink(studio)
    return (
        f'<p id="about-pad">Draw with the mouse or a finger; with the arrow keys after Space.</p>'
        f'<canvas id="pad" width="224" height="224" tabindex="0" role="img" data-paper="{paper}" '
        'aria-label="Drawing pad" aria-describedby="about-pad"></canvas>'
        f'<br><label for="ink">Ink</label> <input id="ink" type="color" value="{ink}">'
    )


def _paper_and_ink(studio: Studio) -> tuple[str, str]:
    if studio.dataset is None:
        return "#000000", "#ffffff"
    some = studio.dataset.test[np.arange(min(64, len(studio.dataset.test)))].images
    return ("#000000", "#ffffff") if np.mean(some) < 128 else ("#ffffff", "#000000")


def of_draws(wish: Wish, drawn: Drawn) -> str:
    """The images of a draw, and the link that saves them."""
    count = len(drawn.pixels)
    says = f"{count} images drawn at temperature {wish.temperature:g} with seed {wish.seed}"
    name = f"draw-{wish.seed}-temperature-{wish.temperature:g}.png"
    together = png(grid(drawn.pixels))
    return (
        html.gallery(drawn.pixels, says)
        + html.paragraph(f"{says}.", kind="note")
        + html.download(together, "image/png", name, "Download as PNG")
    )


def of_way(way: Way, number: int) -> str:
    """How one image of a draw comes of its noise."""
    last = len(way.stages) - 1
    names = ["no noise: all means"]
    for stage in range(1, last + 1):
        level = last - stage + 1
        top = " (top)" if stage == 1 else ""
        names.append(f"+ level {level}{top}" + (": the image" if stage == last else ""))
    figures = [html.figure(way.noise, "the noise", side=112)]
    figures += [
        html.figure(stage, name, says=f"Image {number}, {name}", side=112)
        for stage, name in zip(way.stages, names, strict=True)
    ]
    text = (
        f"The way of image {number}: its noise, then the image with the noise of one level more "
        "each time, the coarsest first. Levels that are still missing are at their mean."
    )
    return html.row(figures) + html.paragraph(text, kind="note")


def of_image(studio: Studio, seen: Seen, known: Known) -> str:
    """What a run makes of an image, and where the image stands."""
    config, ranks = studio.model.config, ranks_of(studio, seen, known)
    error = f"largest error {seen.largest_error:.1e} of a grey level"
    changed = f"{seen.changed} of {seen.given.size} values change"
    pictures = [
        html.figure(seen.given, seen.encoded.title),
        html.figure(seen.reconstruction, f"decoded from its latents: {error}; {changed}"),
    ]
    parts = [
        html.row(pictures),
        f'<p class="figure"><strong data-bits="{seen.bits_per_dim!r}">{seen.bits_per_dim:.4f}'
        "</strong> bits/dim</p>",
        html.paragraph(
            f"The model spends so many bits on each of the image's {config.dimensions} values; "
            f"without a model it is {config.n_bits}. The noise is that of eval.py.",
            kind="note",
        ),
        f'<p class="verdict">{in_words(ranks)}</p>',
    ]
    if known.training:
        bits = known.training["bits_per_dim"]
        parts.append(html.histogram(bits, known.others, seen.bits_per_dim))
    shares = zip(seen.level_bits_per_dim, share_of_levels(studio), strict=True)
    rows = [
        [_level(studio, level), f"{bits:.4f}", f"{share:.0%}"]
        for level, (bits, share) in enumerate(shares)
    ]
    heads = ("level", "bits/dim", "of the values")
    parts.append(html.table("Each level's share of the bits/dim", heads, rows))
    if ranks:
        scores = [
            [rank.title, f"{rank.value:.4f}", f"{rank.below:.0f}", _meaning(rank.name)]
            for rank in ranks
        ]
        heads = ("score", "value", "higher than of 100", "a low place means")
        parts.append(html.table("Scores beside those of training images", heads, scores))
    return "".join(parts)


def _level(studio: Studio, level: int) -> str:
    last = studio.model.config.L - 1
    ends = {0: " (finest)", last: " (top)"} if last else {}
    return f"{level + 1}{ends.get(level, '')}"


def _meaning(name: str) -> str:
    meanings = {
        "likelihood": "less likely than training images",
        "typicality": "bits/dim unusually high or low",
        **{f"complexity_{codec}": "few bits were expected of so simple a file" for codec in CODECS},
        **dict.fromkeys(CODECS, "more complex than training images"),
    }
    return meanings.get(name, "unlikely at this level")


def of_redrawn(studio: Studio, pixels: np.ndarray, level: int) -> str:
    """An image with one level drawn anew, several times."""
    says = f"level {_level(studio, level)} drawn anew"
    figures = [
        html.figure(image, f"draw {number}", says=f"The image with {says}, draw {number}", side=96)
        for number, image in enumerate(pixels, start=1)
    ]
    text = f"The image with {says}; what changes is what this level holds."
    return html.row(figures) + html.paragraph(text, kind="note")


def of_frame(pixels: np.ndarray) -> str:
    """An edited image, and the link that saves it."""
    link = html.download(png(grid(pixels[None])), "image/png", "edit.png", "Download as PNG")
    return html.picture(pixels, "The edited image", side=280) + f"<p>{link}</p>"


def of_ends(first: np.ndarray, second: np.ndarray | None, titles: tuple[str, str]) -> str:
    """The images that are edited."""
    figures = [html.figure(first, f"first: {titles[0]}", side=96)]
    if second is not None:
        figures.append(html.figure(second, f"second: {titles[1]}", side=96))
    return html.row(figures)


def of_video(content: bytes, ending: str, frames: int) -> str:
    """A walk, and the link that saves it."""
    says = f"A walk of {frames} frames, {frames / FRAMES_PER_SECOND:.1f} seconds"
    link = html.download(
        content, _KINDS[ending], f"walk{ending}", f"Download as {ending[1:].upper()}"
    )
    return html.moving(content, ending, says) + f"<p>{link}</p>"


def bar(done: int, total: int, what: str) -> str:
    """How far long work is."""
    return (
        f'<p role="status">{what}: {done} of {total}</p>'
        f'<progress value="{done}" max="{total}" aria-label="{what}"></progress>'
    )
