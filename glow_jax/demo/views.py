"""What the page shows, as HTML, with what each number means beside it."""

from collections.abc import Sequence

import numpy as np

from glow_jax.demo import html
from glow_jax.demo.drawing import Drawn, Way, Wish
from glow_jax.demo.looking import Seen, share_of_levels
from glow_jax.demo.standing import Known, Rank, in_words, ranks_of
from glow_jax.demo.studio import Studio, label_in_words
from glow_jax.demo.video import FRAMES_PER_SECOND
from glow_jax.evaluation.png import png
from glow_jax.evaluation.samples import grid
from glow_jax.ood.complexity import CODECS

_KINDS = {".gif": "image/gif", ".mp4": "video/mp4"}


STOPPED = html.paragraph("Stopped.", aloud=True)
CHOOSE_FIRST = html.paragraph("Choose an image first.")
TAKE_FIRST = html.paragraph("Take a first image: it is what the sliders below change.")
ABOUT_MEASURING = html.paragraph(
    "Bits/dim and file sizes of up to 10,000 training images are measured once, and kept. "
    "It can be stopped, and goes on where it stopped.",
    kind="note",
)
ABOUT_DIRECTIONS = html.paragraph(
    "The mean latent of up to 1,000 training images, minus that of up to 1,000 others. It is kept "
    "in the run, for all who open this page.",
    kind="note",
)


def without_directions(*, can_compute: bool) -> str:
    """What stands in the place of directions where there are none."""
    where = "compute one below, or some" if can_compute else "compute them"
    return html.paragraph(
        f"This run keeps no directions yet: {where} by glow-jax directions RUN.", kind="note"
    )


def of_run(studio: Studio) -> str:
    """The head of the page: what the model is, and where a screen reader hears what is new."""
    config = studio.model.config
    height, width, channels = config.image_shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    several = "any of " if config.multi_class else ""
    labels = f", conditional on {several}{config.y_classes} classes" if config.y_condition else ""
    about = (
        f"A Glow of {studio.training_name}: {kind} images of {height} x {width} with "
        f"{config.n_bits} bits a value{labels}. It has {_counted(config.L, 'level')} of "
        f"{_counted(config.K, 'step')} of flow; the weights are those of {studio.run.title}."
    )
    said = '<p id="said" class="unseen" aria-live="polite"></p>'
    return f"<h1>Glow</h1>{html.paragraph(about, kind='note')}{said}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def of_file_control() -> str:
    """Where a visitor chooses a file, which the browser reads itself."""
    return html.heading("A picture") + (
        '<label for="file">A picture file</label><br>'
        '<input id="file" type="file" accept="image/*,.npy,.pgm,.ppm,.tga,.qoi"><p class="note">It '
        "is cut to a square, resized, measured and forgotten.</p>"
    )


def of_pad(studio: Studio) -> str:
    """Where a visitor draws: white on black where most images are dark, as digits are."""
    paper, ink = _paper_and_ink(studio)
    return html.heading("A drawing") + (
        '<p id="about-pad">Draw with the mouse or a finger. By keys: Space puts the pen down and '
        "lifts it, the arrow keys move it.</p>"
        f'<canvas id="pad" width="224" height="224" tabindex="0" role="img" data-paper="{paper}" '
        'aria-label="Drawing pad" aria-describedby="about-pad"></canvas>'
        f'<br><label for="ink">Ink</label> <input id="ink" type="color" value="{ink}">'
    )


def _paper_and_ink(studio: Studio) -> tuple[str, str]:
    if studio.dataset is None:
        return "#000000", "#ffffff"
    some = studio.dataset.test[np.arange(min(64, len(studio.dataset.test)))].images
    return ("#000000", "#ffffff") if np.mean(some) < 128 else ("#ffffff", "#000000")


def of_draws(studio: Studio, wish: Wish, drawn: Drawn) -> str:
    """The images of a draw, and the link that saves them."""
    count = len(drawn.pixels)
    says = (
        f"{_counted(count, 'image')} drawn at temperature {wish.temperature:g} with seed "
        f"{wish.seed}"
    )
    if drawn.y is not None:
        classes = label_in_words(studio, drawn.y[:1]) if wish.classes is not None else None
        says += f": {classes}" if classes else ": all classes in turn"
    name = f"draw-{wish.seed}-temperature-{wish.temperature:g}.png"
    together = png(grid(drawn.pixels))
    return (
        html.gallery(drawn.pixels, says)
        + html.paragraph(f"{says}.", kind="note", aloud=True)
        + html.download(together, "image/png", name, "Download as PNG")
    )


def of_way(way: Way, number: int) -> str:
    """How one image of a draw comes of its noise."""
    last = len(way.stages) - 1
    names = ["no noise: all means"]
    for stage in range(1, last + 1):
        level = last - stage + 1
        coarsest = " (coarsest)" if stage == 1 < last else ""
        names.append(f"+ level {level}{coarsest}" + (": the image" if stage == last else ""))
    figures = [html.figure(way.noise, "the noise", side=112)]
    figures += [
        html.figure(stage, name, says=f"Image {number}, {name}", side=112)
        for stage, name in zip(way.stages, names, strict=True)
    ]
    text = (
        f"The way of image {number}: its noise, where grey is 0 and black and white are 3 standard "
        "deviations away; then the image with the noise of one level more each time, the coarsest "
        "first. Levels that are still missing are at their mean."
    )
    return html.row(figures) + html.paragraph(text, kind="note")


def of_image(studio: Studio, seen: Seen, known: Known) -> str:
    """What a run makes of an image, and where the image stands."""
    ranks = ranks_of(studio, seen, known)
    parts = [
        html.heading("What the model makes of it"),
        _of_pictures(studio, seen),
        _of_bits(studio, seen),
        html.paragraph(in_words(ranks), kind="verdict", aloud=True),
    ]
    if known.training:
        bits = known.training["bits_per_dim"]
        parts.append(html.histogram(bits, known.others, seen.bits_per_dim))
    elif studio.own_dataset and studio.dataset is not None:
        parts.append(html.paragraph("The end of this page measures them.", kind="note"))
    parts.append(_of_levels(studio, seen))
    if ranks:
        parts.append(_of_ranks(ranks))
    return "".join(parts)


def _of_pictures(studio: Studio, seen: Seen) -> str:
    error = f"{seen.largest_error:.1g}" if seen.largest_error >= 1e-4 else "less than 0.0001"
    decoded = (
        f"decoded from its latents: the largest error is {error} of a grey level, and "
        f"{seen.changed} of {seen.given.size} values change"
    )
    title, y = seen.encoded.title, seen.encoded.y
    label = f" ({label_in_words(studio, y)})" if y is not None else ""
    return html.row(
        [
            html.figure(seen.given, title + label, says=title),
            html.figure(seen.reconstruction, decoded),
        ]
    )


def _of_bits(studio: Studio, seen: Seen) -> str:
    config = studio.model.config
    given = ", given that label" if config.y_condition else ""
    meaning = (
        f"The model spends so many bits on each of the image's {config.dimensions} values{given}; "
        f"without a model it is {config.n_bits}. Fewer is likelier. The noise between grey levels "
        "is that of eval.py, so that a test image has the number that it averages."
    )
    bits = seen.bits_per_dim
    return (
        f'<p class="figure"{html.ALOUD}><strong data-bits="{bits!r}">{bits:.4f}</strong> '
        f"bits/dim</p>{html.paragraph(meaning, kind='note')}"
    )


def _of_levels(studio: Studio, seen: Seen) -> str:
    shares = zip(seen.level_bits_per_dim, share_of_levels(studio), strict=True)
    rows = [
        [_level(studio, level), f"{bits:.4f}", f"{share:.0%}"]
        for level, (bits, share) in enumerate(shares)
    ]
    heads = ("level", "bits/dim", "of the values")
    text = "They add up to the number above; one alone may be below 0."
    return html.table("Each level's share of the bits/dim", heads, rows) + html.paragraph(
        text, kind="note"
    )


def _of_ranks(ranks: Sequence[Rank]) -> str:
    rows = [
        [rank.title, f"{rank.value:.4f}", f"{rank.below:.0f}", _meaning(rank.name)]
        for rank in ranks
    ]
    heads = ("score", "in bits/dim", "above so many of 100 training images", "few would mean")
    return html.table("Scores beside those of training images", heads, rows)


def _level(studio: Studio, level: int) -> str:
    last = studio.model.config.L - 1
    ends = {0: " (finest)", last: " (coarsest)"} if last else {}
    return f"{level + 1}{ends.get(level, '')}"


def _meaning(name: str) -> str:
    meanings = {
        "likelihood": "less likely than training images",
        "typicality": "bits/dim unusually high or low",
        **{f"complexity_{codec}": "more bits than its file size suggests" for codec in CODECS},
        **dict.fromkeys(CODECS, "a larger file than those of training images"),
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
    return html.moving(content, ending, says) + f"<p{html.ALOUD}>{says}.</p><p>{link}</p>"


def bar(done: int, total: int, what: str) -> str:
    """How far long work is."""
    return (
        f"<p>{what}: {done} of {total}</p>"
        f'<progress value="{done}" max="{total}" aria-label="{what}"></progress>'
    )
