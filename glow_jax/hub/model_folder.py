"""Model folders: a trained model as the Hugging Face Hub keeps one.

FOLDER/config.json         the run's configuration, images and results, and about the weights
FOLDER/model.safetensors   every array of the model, those that are not trained too
FOLDER/README.md           the model card
FOLDER/card.png            the card's picture
FOLDER/metrics.jsonl       the run's, if it has one
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glow_jax.config import Config, ModelConfig
from glow_jax.config.checks import brief
from glow_jax.config.json import build
from glow_jax.errors import GlowError
from glow_jax.hub.paths import told, told_dataset
from glow_jax.hub.weights import read_weights
from glow_jax.model import Glow, abstract_glow, computing
from glow_jax.runs import LoadedRun, RunData, WhichStep, whole_steps
from glow_jax.runs.hparams import HPARAMS, config_of, values_of
from glow_jax.runs.inside import read_json
from glow_jax.runs.license import check_license
from glow_jax.runs.metrics import METRICS, Row, published_rows

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
LARGEST_MIB = {CONFIG: 1, METRICS: 16}
"""How large the other files may be, wherever a model folder is read, fetched or written."""

Weights = Literal["averaged", "trained", "unsaid"]
"""Which parameters: averaged ones, those in training, or either, where nobody has said."""

_FORMAT = 1
_LIBRARY = "glow-jax"


@dataclass(frozen=True)
class _About:
    """What `config.json` says besides the configuration, the images and the results.

    Attributes:
        format: the version of the format.
        weights: which parameters the folder holds.
        step: the number of updates before them.
        sha256: the digest of `model.safetensors`.
        license: an identifier of the hub's; None in older folders, which do not say.
    """

    format: int
    weights: Weights
    step: int
    sha256: str
    license: str | None

    def __post_init__(self) -> None:
        if self.license is not None:
            check_license(self.license)


@dataclass(frozen=True)
class PublishedRun(LoadedRun):
    """A loaded model folder. Its `folder` is where results of it are kept.

    Attributes:
        source: the model folder, or the model's name on the hub.
        weights: which parameters it holds; `average` are the same if they are averaged.
        images: what it remembers of its images, or None.
        results: the results of `eval.py`, or None.
        rows: the lines of the run's metrics.
        stated_license: the licence in its `config.json`, or None.
    """

    source: str
    weights: Weights
    images: RunData | None
    results: Mapping[str, object] | None
    rows: Sequence[Row]
    stated_license: str | None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.source

    @property
    def data(self) -> RunData | None:
        """What it remembers of its images; None if it does not know them."""
        return self.images

    @property
    def license(self) -> str | None:
        """The licence of its weights; None if it does not say."""
        return self.stated_license


@dataclass(frozen=True)
class Described:
    """A model folder of which only `config.json` is read.

    Attributes:
        path: the file `config.json`.
        config: the configuration of the run.
        about: what else it says.
        images: what the run remembers of its images, or None.
        results: the results of `eval.py`, or None.
        abstract: the model's shapes.
    """

    path: Path
    config: Config
    about: _About
    images: RunData | None
    results: Mapping[str, object] | None
    abstract: Glow


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is to be read as a model folder; a run that has checkpoints is not.

    It may be of another program, of which reading says so: see `may_be_replaced`.
    """
    if whole_steps(folder):
        return False
    there = {name for name in (CONFIG, WEIGHTS, HPARAMS) if _is_there(folder / name)}
    return WEIGHTS in there or (CONFIG in there and HPARAMS not in there)


def may_be_replaced(folder: Path) -> bool:
    """Whether a folder holds a model that this program wrote, as its `config.json` says.

    Other programs have files of the same names, which are theirs.
    """
    if not is_model_folder(folder):
        return False
    try:
        values = read_json(_file(folder, CONFIG), LARGEST_MIB[CONFIG])
    except (GlowError, OSError):
        return False
    return (
        isinstance(values, dict)
        and values.get("library_name") == _LIBRARY
        and isinstance(values.get("hparams"), dict)
    )


def _is_there(path: Path) -> bool:
    """Whether a path is anything, even a link to nothing; false for what no path can be."""
    return path.is_symlink() or path.exists()


def describe(folder: Path) -> Described:
    """Read and check `config.json`; the weights may still be missing.

    Raises:
        GlowError: it is damaged, not of glow_jax, of a later version, or a link out of the folder.
    """
    path = _file(folder, CONFIG)
    try:
        values = read_json(path, LARGEST_MIB[CONFIG])
    except FileNotFoundError:
        raise GlowError(f"{path} is missing: fetch the model again.") from None
    if not isinstance(values, dict) or not isinstance(values.get("hparams"), dict):
        raise GlowError(
            f"{path} is no configuration of a model of glow_jax: it has no hparams. It may belong "
            "to a model of another program."
        )
    number = values.get("format")
    if number != _FORMAT or type(number) is not int:
        raise GlowError(
            f"{path} has format {brief(number)}; this glow_jax reads format {_FORMAT}: install a "
            "later one."
        )
    try:
        fields = [entry.name for entry in dataclasses.fields(_About)]
        about = build(_About, {name: values.get(name) for name in fields}, "config")
        images = values.get("images")
        data = None if images is None else build(RunData, images, "config.images")
    except GlowError as error:
        raise GlowError(f"{path} is damaged: {error}") from error
    if about.step < 0:
        raise GlowError(f"{path} is damaged: step is {about.step}; it must be 0 or above.")
    results = values.get("results")
    if results is not None and not isinstance(results, dict):
        raise GlowError(f"{path} is damaged: results is {brief(results)}; it must be an object.")
    config = config_of(values["hparams"], path)
    if min(config.model.image_shape) < 1:
        raise GlowError(f"{path} is damaged: its model has no image_shape.")
    return Described(path, config, about, data, results, abstract_glow(config.model))


def read(
    folder: Path,
    source: str,
    kept_in: Path,
    step: WhichStep = None,
    *,
    average: bool = True,
) -> PublishedRun:
    """Load a model folder.

    Args:
        folder: the folder.
        source: what messages call it.
        kept_in: where results of it are kept.
        step: None, or the number of its only step.
        average: whether averaged parameters are wanted where there is a choice.

    Raises:
        GlowError: a file is damaged, missing, or a link out of the folder, or the folder has not
            what is wanted.
    """
    found = describe(folder)
    about = found.about
    if step not in (None, about.step):
        raise GlowError(
            f"{source} is a model folder, which has one step, {about.step}: leave --step out."
        )
    if about.weights == "averaged" and not average:
        raise GlowError(f"{source} holds averaged parameters only: leave --no_average out.")
    model = read_weights(_file(folder, WEIGHTS), found.abstract, about.sha256)
    model = computing(model, dtype=found.config.training.dtype)
    return PublishedRun(
        folder=kept_in,
        config=found.config,
        step=about.step,
        model=model,
        average=model if about.weights == "averaged" else None,
        has_optimizer=False,
        progress={},
        source=source,
        weights=about.weights,
        images=found.images,
        results=found.results,
        rows=published_rows(_file(folder, METRICS), LARGEST_MIB[METRICS]),
        stated_license=about.license,
    )


def _file(folder: Path, name: str) -> Path:
    """A file of a model folder, where it may be a link of the hub's own cache.

    The cache has links from `snapshots/REVISION/NAME` to `blobs/DIGEST` beside `snapshots`. Links
    to any other place are left for `open_inside` to refuse.
    """
    path = folder / name
    if not path.is_symlink():
        return path
    place = folder.resolve()
    real = Path(os.path.realpath(path))  # which raises nothing, as at links in a circle
    is_cache = place.parent.name == "snapshots" and real.parent == place.parents[1] / "blobs"
    return real if is_cache else path


def values_for(
    config: Config | ModelConfig,
    *,
    weights: Weights,
    step: int,
    content: bytes,
    license: str,
    images: RunData | None,
    results: Mapping[str, object] | None,
) -> dict[str, object]:
    """The plain values of `config.json`.

    Args:
        config: the run's configuration, without paths of the machine that it was trained on; or
            the model's alone, where no run is known.
        weights: which parameters.
        step: the number of updates before them.
        content: that of `model.safetensors`.
        license: an identifier of the hub's.
        images: what the run remembers of its images, or None.
        results: the results of `eval.py`, or None.

    Raises:
        GlowError: there can be no such licence.
    """
    about = _About(_FORMAT, weights, step, hashlib.sha256(content).hexdigest(), license)
    if isinstance(config, Config):
        hparams = values_of(without_paths(config))
    else:
        hparams = values_of(Config(model=config))
        hparams = {name: hparams[name] for name in ("version", "model")}
    return {
        "library_name": _LIBRARY,
        "model_type": "glow",
        **dataclasses.asdict(about),
        "hparams": hparams,
        "images": None if images is None else dataclasses.asdict(images),
        "results": None if results is None else dict(results),
    }


def without_paths(config: Config) -> Config:
    """The configuration without the folders of the machine, which may name its user.

    Of paths the last part stays, see `told`; the folder of the run and the root of the data go.
    """
    plain = Config()
    data = dataclasses.replace(
        config.data, dataset=told_dataset(config.data.dataset), dataroot=plain.data.dataroot
    )
    training = dataclasses.replace(
        config.training,
        saved_model=told(config.training.saved_model),
        saved_optimizer=told(config.training.saved_optimizer),
    )
    return dataclasses.replace(config, data=data, training=training, output=plain.output)
