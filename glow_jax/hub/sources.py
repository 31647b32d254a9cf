"""From what a user names to a loaded run: a run folder, a model folder, or a name on the hub."""

import re
import weakref
from dataclasses import dataclass
from pathlib import Path

from glow_jax import runs
from glow_jax.config import Config
from glow_jax.errors import GlowError, shown
from glow_jax.hub import model_folder
from glow_jax.hub.download import Access, Name, fetch
from glow_jax.model import Glow
from glow_jax.runs import LoadedRun, WhichStep

# What huggingface_hub allows in a name; a revision is a branch, a tag or a commit.
_PART = "[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
_NAME = re.compile(f"({_PART})/({_PART})(?:@([A-Za-z0-9][A-Za-z0-9_./-]{{0,99}}))?")


@dataclass(frozen=True)
class Origin:
    """Where a model was loaded from.

    Attributes:
        source: as it was given.
        step: the step that was loaded.
        average: whether averaged parameters were asked for.
        access: how the hub was to be asked.
    """

    source: str | Path
    step: int
    average: bool
    access: Access

    def open(self) -> LoadedRun:
        """Load it again.

        Raises:
            GlowError: it cannot be loaded any more.
        """
        return load_run(self.source, self.step, average=self.average, access=self.access)


# Beside the models, because a model knows nothing of files.
_ORIGINS: "weakref.WeakKeyDictionary[Glow, Origin]" = weakref.WeakKeyDictionary()


def origin_of(model: Glow) -> Origin | None:
    """Where a model was loaded from; None for one that was made or changed in another way."""
    return _ORIGINS.get(model)


def load(source: str | Path, step: WhichStep = None, *, average: bool = True) -> Glow:
    """Load a trained model.

    Args:
        source: a run folder that `train.py` or a converter wrote, a model folder, or a model's name
            on the Hugging Face Hub, user/name or user/name@revision.
        step: a step's number; "best" for the best on the validation split; None for the newest.
        average: take the averaged parameters if the run keeps them; else those in training.

    Returns:
        The model. Its coupling networks compute in the dtype of the run, at the highest precision
        whatever the run was trained at.

    Raises:
        GlowError: there is no such folder, name or step, or a file is damaged.
    """
    return load_from(source, step, average=average)


def load_from(
    source: str | Path,
    step: WhichStep = None,
    *,
    average: bool = True,
    access: Access | None = None,
) -> Glow:
    """`load`, with what the hub is to be told."""
    access = access or Access()
    run = load_run(source, step, average=average, access=access)
    model = run.average_or_model
    _ORIGINS[model] = Origin(source, run.step, average, access)
    return model


def load_run(
    source: str | Path,
    step: WhichStep = None,
    *,
    average: bool = True,
    access: Access | None = None,
) -> LoadedRun:
    """Load a run with all that it knows, except the optimizer's state; see `load`."""
    access = access or Access()
    name = _name_of(source)
    if name is not None:
        folder = fetch(name, access)
        return model_folder.read(folder, str(name), name.kept_in, step, average=average)
    folder = Path(source)
    if model_folder.is_model_folder(folder):
        return model_folder.read(folder, str(folder), folder, step, average=average)
    _refuse_no_folder(folder)
    return runs.load_run(folder, step, average=average)


def read_config(source: str | Path) -> Config:
    """The configuration of what `load_run` loads, without its weights.

    Raises:
        GlowError: as for `load`.
    """
    name = _name_of(source)
    if name is not None:
        return model_folder.describe(fetch(name, Access(), weights=False)).config
    folder = Path(source)
    if model_folder.is_model_folder(folder):
        return model_folder.describe(folder).config
    _refuse_no_folder(folder)
    return runs.read_config(folder)


def _name_of(source: str | Path) -> Name | None:
    """The name on the hub that a source is; None if it is a path.

    What exists is a path, and so is what would lie in a folder that exists.
    """
    match = _NAME.fullmatch(str(source))
    if match is None or Path(source).exists() or Path(match[1]).exists():
        return None
    return Name(f"{match[1]}/{match[2]}", match[3])


def model_name(source: str | Path) -> str:
    """The name of the model that a source is, without its user, its revision and its folders."""
    name = _name_of(source)
    return Path(source).resolve().name if name is None else name.repository.rpartition("/")[2]


def _refuse_no_folder(folder: Path) -> None:
    """Refuse a path that is not there or is a file, and say what a source can be.

    Raises:
        GlowError: it is no folder.
    """
    if folder.is_dir() or folder.is_symlink():
        return
    if folder.exists():
        whose = ""
        if model_folder.is_model_folder(folder.parent):
            whose = f" of the model folder {shown(folder.parent)}"
        raise GlowError(
            f"{shown(folder)} is a file{whose}, and no run folder: give the folder of a run or of "
            "a model."
        )
    match = _NAME.fullmatch(str(folder))
    if match is None:
        raise GlowError(
            f"{shown(folder)} is no run folder: it does not exist; give a run folder, a model "
            "folder, or user/name of the Hugging Face Hub."
        )
    raise GlowError(
        f"{shown(folder)} is no run folder: there is none of that name in {match[1]}. It was not "
        f"looked for on the Hugging Face Hub, because {match[1]} is a folder here."
    )
