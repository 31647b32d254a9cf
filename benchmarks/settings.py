"""Tables of the program's own settings: its data sets and its presets.

What the code knows is taken from there. Beside it stand the words that only a person can write.
"""

from typing import NamedTuple

from figures import markdown

from glow_jax.catalogue import ALIASES, CATALOGUE, Entry, find
from glow_jax.config import Config
from glow_jax.config.presets import PRESETS, PUBLISHED

_FLAG = {True: "yes", False: "no"}


class Words(NamedTuple):
    """What the catalogue does not know of a data set.

    Attributes:
        source: where its images come from.
        images: how they are cut or resized.
        labels: what they are labelled with, if not with a class.
        names: more names, as they are given.
    """

    source: str
    images: str = ""
    labels: str = ""
    names: str = ""


_TFDS = "tensorflow-datasets"
_PADS = "`--image_size 32` pads with black"
WORDS: dict[str, Words] = {
    "digits": Words("scikit-learn, no download"),
    "mnist": Words(_TFDS, _PADS),
    "fashion_mnist": Words(_TFDS, _PADS),
    "cifar10": Words(_TFDS),
    "cifar100": Words(_TFDS),
    "svhn_cropped": Words(_TFDS),
    "celeb_a": Words(f"{_TFDS} (Google Drive)", "or any size", "attributes (`--multi_class`)"),
    "celeb_a_hq": Words("files put by hand into `DATAROOT/downloads/manual`"),
    "lsun": Words(
        "your pictures in `DATAROOT/lsun/CATEGORY/train` and `test`", names="`lsun/CATEGORY`"
    ),
    "downsampled_imagenet": Words(
        "your pictures in `DATAROOT/downsampled_imagenet/train` and `test`",
        "`--image_size 32` or `64`",
    ),
}
"""The words beside every row of the catalogue."""

_OTHERS = [
    (
        *("any other name", "any TFDS data set with a feature `image`", "its `label`"),
        *("no", "no", "8", _TFDS),
    ),
    (
        "`folder:PATH`, `FILE.zip`",
        "resized and centre-cropped to `--image_size`; one channel if all are grey, or by "
        "`--channels`",
        *("its subfolders, if there are two or more", "no", "no", "8"),
        "subfolders `train` and `test`, `val`, `valid`, `validation` or `dev`; or a tenth held out",
    ),
    (
        "`FILE.npz`, `.npy`",
        "arrays `images`, and if you have them `labels`, `test_images`, `test_labels`",
        *("from the labels", "no", "no", "8", "your own file"),
    ),
]


def datasets() -> str:
    """Every data set, in Markdown."""
    columns = ("name", "images", "classes", "shifts", "flips", "bits", "by")
    rows = [_dataset(name, entry) for name, entry in CATALOGUE.items()]
    return markdown(columns, [*rows, *_OTHERS])


def _dataset(name: str, entry: Entry) -> list[object]:
    words = WORDS[name]
    aliases = [alias for alias, meant in ALIASES.items() if meant == name]
    names = ", ".join([*(f"`{each}`" for each in (*aliases, name)), *filter(None, [words.names])])
    height, width, channels = entry.image_shape
    images = [f"{height}x{width}x{channels}" if height else "", words.images]
    if entry.centre:
        images.append(f"from the central {entry.centre}x{entry.centre}")
    if entry.random_crop_of:
        side = entry.random_crop_of
        images.append(f"at random places of {side}x{side}")
    classes = f"{entry.classes or 'none'} {words.labels}".strip()
    flags = (_FLAG[entry.shifts], _FLAG[entry.flips])
    return [names, "; ".join(filter(None, images)), classes, *flags, entry.n_bits, words.source]


TODAY = {
    "digits": "the quick start",
    "imagenet32": "the originals are gone; image-net.org's are resized differently and not "
    "comparable",
    "imagenet64": "as `imagenet32`",
    "celeba256": "a different tenth of the images is held out",
    "lsun64": "your export of the archives",
    "fashion_mnist-small": "the same: the models in `models/`",
}
"""What today's images of a preset are, where they are not those of the published figure."""


def presets() -> str:
    """Every preset, in Markdown."""
    columns = ("preset", "images", "K", "L", "hidden", "coupling", "bits", "published bits/dim")
    rows = [_preset(name, config) for name, config in PRESETS.items()]
    return markdown([*columns, "today's images"], rows)


def _preset(name: str, config: Config) -> list[object]:
    model = config.model
    shape = model.image_shape
    if not any(shape):  # decided by the data set
        entry = find(config.data.dataset)
        assert entry is not None
        shape = entry.image_shape
    published = PUBLISHED.get(name)
    found = "" if published is None or published.bits_per_dim is None else published.bits_per_dim
    architecture = (model.K, model.L, model.hidden_channels, model.flow_coupling, model.n_bits)
    images = "x".join(map(str, shape))
    return [f"`{name}`", images, *architecture, found, TODAY.get(name, "the same")]
