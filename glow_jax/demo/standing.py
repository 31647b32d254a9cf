"""Where an image stands among the images that were measured: ranks, and plain words."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glow_jax.demo.beside import counted
from glow_jax.demo.looking import Seen
from glow_jax.demo.studio import Studio
from glow_jax.errors import GlowError
from glow_jax.evaluation.likelihood import OnImages
from glow_jax.ood.comparison import Job, file_name
from glow_jax.ood.complexity import CODEC_CHANNELS, CODECS, code_length
from glow_jax.ood.images import Images, reference_images
from glow_jax.ood.measure import LIKELIHOOD, Meter, codec_meter, likelihood_meter
from glow_jax.ood.scores import score_table
from glow_jax.runs.measured import Columns, columns_of_any_images

# Of 100 training images, so many at each end are called unusual.
_UNUSUAL = 5
_NOT_ORDINARY = 15
_MEASURED_AT_ONCE = 100
_BITS = "bits_per_dim"


@dataclass(frozen=True)
class Known:
    """What was measured on a run's images.

    Attributes:
        training: of its training images, perhaps not all of them yet; none where nothing is.
        others: bits/dim of other images, by their names.
    """

    training: Columns
    others: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Rank:
    """A score of an image beside those of training images.

    Attributes:
        name: the score's, as on the command line of `eval.py --ood`.
        title: its title.
        value: the image's, in bits/dim; higher means more like the training images.
        below: of 100 training images, so many have a lower score.
    """

    name: str
    title: str
    value: float
    below: float


def known_of(studio: Studio) -> Known:
    """Read what `eval.py --ood` and the page have measured with these weights."""
    by_meter = {
        meter.name: columns_of_any_images(
            studio.run.folder, meter.name, meter.origin, besides="images_sha256"
        )
        for meter in _meters(studio)
    }
    likelihoods = by_meter.pop(LIKELIHOOD)
    place = f"{file_name(studio.training_name)}-training"
    training = dict(likelihoods.pop(place, {}))
    for columns in by_meter.values():
        of_training = columns.get(place, {})
        if training and all(len(v) == len(training[_BITS]) for v in of_training.values()):
            training |= of_training
    return Known(training, {name: columns[_BITS] for name, columns in likelihoods.items()})


def _meters(studio: Studio) -> list[Meter]:
    """What is measured on training images: bits/dim, and the length of their files."""
    config = studio.model.config
    grey_or_colours = config.image_shape[2] in CODEC_CHANNELS
    codecs = [name for name, codec in CODECS.items() if grey_or_colours and codec.version()]
    return [
        likelihood_meter(studio.flow),
        *(codec_meter(name, config.n_bits) for name in codecs),
    ]


def _reference(studio: Studio) -> Images:
    if studio.dataset is None or not studio.own_dataset:
        raise GlowError("The training images of this run are not here: give --dataroot.")
    return reference_images(studio.dataset, studio.run.config.data.validation)[0]


def measure_training(studio: Studio) -> Generator[tuple[int, int], None, None]:
    """Measure the training images, at most 10,000, and keep the numbers in the run.

    What is measured is kept when the iterator is closed, and the next call goes on there.

    Yields:
        How many are measured, and how many there are to measure: images times measures.

    Raises:
        GlowError: the training images are not here.
    """
    images = _reference(studio)
    jobs = [Job(images, meter) for meter in _meters(studio)]

    def work(progress: OnImages) -> None:
        for job in jobs:
            job.carry_out(studio.run.folder, batch_size=_MEASURED_AT_ONCE, progress=progress)

    yield from counted(work, total=len(images.split) * len(jobs))


def ranks_of(studio: Studio, seen: Seen, known: Known) -> list[Rank]:
    """The scores of an image beside those of the training images; none while none is measured.

    They are those of `eval.py --ood` that need no more than what the page measures.
    """
    if not known.training:
        return []
    own = _columns_of(studio, seen)
    ranks = []
    for score in score_table(studio.model.config).values():
        if not all(name in known.training and name in own for name in score.needs):
            continue
        training = [known.training[name] for name in score.needs]
        fitted = (score.fit(*training),) if score.fit else ()
        value = score.function(*[own[name] for name in score.needs], *fitted)
        below = np.mean(score.function(*training, *fitted) < value)
        ranks.append(Rank(score.name, score.title, float(value[0]), 100 * float(below)))
    return ranks


def _columns_of(studio: Studio, seen: Seen) -> Columns:
    config = studio.model.config
    lengths = {
        meter.name: code_length(seen.given[None], CODECS[meter.name], n_bits=config.n_bits)
        for meter in _meters(studio)
        if meter.name in CODECS
    }
    bits = {
        _BITS: np.array([seen.bits_per_dim]),
        "level_bits_per_dim": seen.level_bits_per_dim[None],
    }
    return bits | lengths


def in_words(ranks: Sequence[Rank]) -> str:
    """What the scores say of an image, in one sentence.

    Likelier does not mean more like the training images: simple images are likely under a model of
    complex ones. So the sentence says how simple the image is, and whether its bits/dim are usual.
    """
    below = {rank.name: rank.below for rank in ranks}
    if "likelihood" not in below:
        return "The training images are not measured yet, so there is nothing to compare with."
    words = [f"Likelier than {below['likelihood']:.0f} of 100 training images"]
    simple = next((below[name] for name in CODECS if name in below), None)
    if simple is not None:
        kind = "simple" if simple > 100 - _NOT_ORDINARY else "of usual complexity"
        words.append("complex" if simple < _NOT_ORDINARY else kind)
    typical = below["typicality"] >= _UNUSUAL
    return f"{words[0]}: {', '.join([*words[1:], 'typical' if typical else 'not typical'])}."
