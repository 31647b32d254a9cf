"""`hparams.json`: the configuration of a run, and the version of the folder's format.

Version 1, whose files have no version number, kept a model's parameters and untrained state apart;
see `glow_jax.runs.version_1`. Up to version 2, `model.padding` was `model.pad_ones`. Up to version
3, every run trained at the highest precision. Up to version 4, every run had the constant schedule.
Up to version 5, no run had a tracker but TensorBoard.
"""

import dataclasses
from pathlib import Path

from glow_jax.commands import command
from glow_jax.config import Config, from_json, to_json
from glow_jax.config.checks import brief
from glow_jax.errors import GlowError
from glow_jax.files import write_json
from glow_jax.runs.inside import check_inside, read_json

HPARAMS = "hparams.json"
_VERSION = 6


def read_config(folder: str | Path) -> Config:
    """Read `hparams.json` of a run folder.

    Raises:
        GlowError: the file is missing, not valid, or of a later version than this program reads,
            or the folder has symbolic links.
    """
    check_inside(Path(folder))
    path = Path(folder) / HPARAMS
    if not path.is_file():
        raise GlowError(f"{folder} is no run folder: it has no {HPARAMS}.{_hint(Path(folder))}")
    values = read_json(path)
    try:
        return config_of(values, path)
    except GlowError as error:
        raise GlowError(f"{error}{_hint(Path(folder))}") from error


def config_of(values: object, path: Path) -> Config:
    """The configuration that a JSON file of any version holds.

    Args:
        values: what the file holds.
        path: the file, for messages.

    Raises:
        GlowError: it is not valid, or of a later version than this program reads.
    """
    values = dict(values) if isinstance(values, dict) else values
    version = values.pop("version", 1) if isinstance(values, dict) else 1
    if type(version) is not int or not 1 <= version <= _VERSION:
        raise GlowError(
            f"{path} has version {brief(version)}; this glow_jax reads versions up to {_VERSION}: "
            "install a later one."
        )
    if version < 3:
        _rename_padding(values)
    if version < 4:
        _note_precision(values)
    try:
        return from_json(values)
    except GlowError as error:
        raise GlowError(f"{path} is not a configuration of glow_jax: {error}") from error


def _rename_padding(values: object) -> None:
    """Give the padding of a model of before version 3 its present name; other values stay."""
    model = values.get("model") if isinstance(values, dict) else None
    if isinstance(model, dict) and type(model.get("pad_ones")) is bool:
        model["padding"] = "ones" if model.pop("pad_ones") else "zeros"


def _note_precision(values: object) -> None:
    """Give a run of before version 4 the precision that it was trained at; other values stay."""
    training = values.setdefault("training", {}) if isinstance(values, dict) else None
    if isinstance(training, dict):
        training.setdefault("precision", "highest")


def _hint(folder: Path) -> str:
    """What to do with a folder of Glow-PyTorch."""
    found = sorted(path for end in ("pt", "pth", "ckpt") for path in folder.glob(f"*.{end}"))
    if not found:
        return ""
    return (
        f" It holds checkpoints of PyTorch: {command('convert from-torch')} {found[-1]} makes a "
        "run folder of one."
    )


def write_config(folder: Path, config: Config) -> None:
    """Write `hparams.json`, without the flags that hold for one start of a run only.

    The folder is made if it does not exist.
    """
    once = {"fresh": False, "resume": False, "step": None}
    once |= {"coordinator": "", "num_processes": 0, "process_id": None}
    config = dataclasses.replace(config, output=dataclasses.replace(config.output, **once))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / HPARAMS, values_of(config))


def values_of(config: Config) -> dict[str, object]:
    """The plain values that `config_of` makes the configuration of."""
    return {"version": _VERSION, **to_json(config)}
