"""Command lines of most commands, up to where heavy work would start."""

import contextlib
import dataclasses
import functools
import io
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from huggingface_hub import constants
from PIL import Image

from glow_jax.cli import (
    directions,
    evaluate,
    export,
    from_hub,
    from_torch,
    sample,
    to_hub,
    to_torch,
    train,
    walk,
)
from glow_jax.config import Config
from glow_jax.export import folder as export_folder
from glow_jax.training import initial, trainer

from .case import Case, new_folder, rng_of
from .commands import run_command
from .damage import damage_bytes
from .model_folders import valid_folder
from .run_folders import copy_run

# More samples than these are drawn, to see that nobody is promised what no memory holds.
_MANY_SAMPLES = 10**6


@dataclasses.dataclass(frozen=True)
class _Command:
    """A script: its entry point, a valid command line, and where its flags are declared."""

    main: Callable[[], None]
    words: tuple[str, ...]
    flags: tuple[str, ...]


class _HeavyWorkError(Exception):
    """The command line was accepted."""


def _names(*kinds: type) -> tuple[str, ...]:
    fields = {entry.name for kind in kinds for entry in dataclasses.fields(kind)}
    return tuple(sorted(fields - {"run", "source"}))  # these are given by their place


def _sections() -> list[type]:
    defaults = Config()
    values = [getattr(defaults, entry.name) for entry in dataclasses.fields(Config)]
    return [type(value) for value in values if dataclasses.is_dataclass(value)]


_TRAIN = ("--dataset", "images.npz", "--output_dir", "new", "--K=1", "--L=1")
_TRAIN += ("--batch_size=2", "--n_init_batches=1", "--hidden_channels=2")
COMMANDS = {
    "train": _Command(train.main, _TRAIN, _names(*_sections())),
    "resume": _Command(train.main, ("--output_dir", "run", "--resume"), _names(*_sections())),
    "eval": _Command(evaluate.main, ("run",), _names(evaluate.Arguments)),
    "ood": _Command(evaluate.main, ("run", "--ood", "other.npz"), _names(evaluate.Arguments)),
    "sample": _Command(sample.main, ("run",), _names(sample.Arguments)),
    "from_torch": _Command(
        from_torch.main,
        ("glow.pt", "--output", "new", "--no_check"),
        tuple(name for name in _names(from_torch.Arguments) if name != "file"),
    ),
    "to_torch": _Command(
        to_torch.main, ("run", "--output", "new/glow.pt"), _names(to_torch.Arguments)
    ),
    "from_hub": _Command(from_hub.main, ("model", "--output", "new"), _names(from_hub.Arguments)),
    "to_hub": _Command(to_hub.main, ("run", "--output", "new"), _names(to_hub.Arguments)),
    "export": _Command(export.main, ("run", "--output", "new"), _names(export.Arguments)),
    "directions": _Command(
        directions.main,
        ("run", "--of", "0", "--dataset", "images.npz"),
        _names(directions.Arguments),
    ),
    "rows": _Command(directions.main, ("run", "--file", "rows.npy"), _names(directions.Arguments)),
    "walk": _Command(
        walk.main, ("run", "--end", "a.png", "--output", "new/walk.gif"), _names(walk.Arguments)
    ),
}

_WRITING = ("from_torch", "to_torch", "from_hub", "to_hub", "export", "walk")
"""What writes a folder `new`, which a refusal leaves whole or not there."""

_NUMBERS = ["0", "1", "2", "3", "-1", "-0", "+1", "007", "0.5", "-0.5", "1e3", "1e-400", "1e400"]
_NUMBERS += ["nan", "inf", "-inf", "NaN", "1_000", "0x10", "²", "٣", "9" * 10, "9" * 30, "9" * 5000]
_NUMBERS += [
    "4294967295",
    "4294967296",
    "2147483648",
    "9223372036854775808",
    "1e308",
    "1,2",
    "1e38",
]
_WORDS = [
    "",
    " ",
    "None",
    "True",
    "False",
    "true",
    "best",
    "auto",
    "adam",
    "bfloat16",
    "reversible",
]
_WORDS += ["reverse", "shuffle", "additive", "digits", "cifar", "mnistt", "10m", "0m", "500", "m"]
_WORDS += [
    "a\nb",
    "\udcff",
    "\x1b[2J",
    "x" * 5000,
    "-",
    "--",
    "a=b",
    "a:b",
    "host:1",
    "*",
    "{}",
    "[]",
]
_WORDS += [
    "log_prob",
    "typicality",
    "0,0.5",
    ",",
    "nan,1",
    "1,,2",
    "cat",
    "bits",
    "%s",
    "{0}",
    "\\",
]
_PATHS = ["run", "run/", "./run", "run/../run", "empty", "file", "nothing", "nothing/x", "file/x"]
_PATHS += [
    ".",
    "..",
    "images.npz",
    "other.npz",
    "glow.pt",
    "folder:pictures",
    "folder:",
    "folder:.",
]
_PATHS += [
    "folder:nothing",
    "pictures.zip",
    "/dev/null",
    "/dev/null/x",
    "~nobody/x",
    "link",
    "pipe",
]
_PATHS += [
    "optimizer.pt",
    "hparams.json",
    "new/optimizer.pt",
    "bad.npz",
    "x" * 300,
    "run/checkpoints",
    "model",
    "model@main",
    "somebody/model",
    "seed:1",
    "rows.npy",
]
_VALUES = [*_NUMBERS, *_WORDS, *_PATHS]


def make(seed: int, folder: Path) -> Case:
    """The case of a seed."""
    rng, given = rng_of("command_lines", seed), new_folder(folder)
    work = given / "work"
    work.mkdir()
    _fill(work, rng)
    name = rng.choice(list(COMMANDS))
    words = _words(COMMANDS[name], rng)
    output = work / "new" if name in _WRITING else None
    run = functools.partial(_run, COMMANDS[name].main, work, words)
    return Case(run, [name, *(word[:80] for word in words)], output)


def _fill(work: Path, rng: random.Random) -> None:
    """What the command lines speak of."""
    copy_run(work / "run")
    shutil.copytree(valid_folder(), work / "model")
    for name, content in _files().items():
        (work / name).write_bytes(content)
    (work / "bad.npz").write_bytes(damage_bytes(_files()["images.npz"], rng)[0])
    (work / "empty").mkdir()
    (work / "link").symlink_to("run")
    os.mkfifo(work / "pipe")
    (work / "pictures").mkdir()
    for number in range(12):
        shutil.copy(work / "a.png", work / "pictures" / f"{number}.png")


@functools.cache
def _files() -> dict[str, bytes]:
    from .layouts import whole_checkpoint

    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)
    picture, arrays, others, rows = (io.BytesIO() for _ in range(4))
    Image.fromarray(images[0, :, :, 0]).save(picture, "PNG")
    np.savez(arrays, images=images, labels=np.arange(12) % 2)
    np.savez(others, images=images[::-1])
    np.save(rows, np.zeros((2, 16), np.float32))
    checkpoint = whole_checkpoint()
    return {
        **{"a.png": picture.getvalue(), "file": b"text", "glow.pt": checkpoint.files["glow.pt"]},
        **{"images.npz": arrays.getvalue(), "other.npz": others.getvalue()},
        "rows.npy": rows.getvalue(),
    }


def _words(command: _Command, rng: random.Random) -> list[str]:
    """A valid command line with a few flags added, changed or cut short."""
    words = list(command.words)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3])):
        flag = rng.choice(command.flags)
        spelling = rng.choice([*[flag] * 12, flag.replace("_", "-"), f"no_{flag}", flag + "s"])
        value = rng.choice(_VALUES)
        way = rng.choice([*["two"] * 8, *["equals"] * 8, "alone", "several"])
        match way:
            case "two":
                words += [f"--{spelling}", value]
            case "equals":
                words.append(f"--{spelling}={value}")
            case "alone":
                words.append(f"--{spelling}")
            case "several":
                words += [f"--{spelling}", value, rng.choice(_VALUES)]
    if rng.random() < 0.08:
        words[rng.randrange(len(words))] = rng.choice(_VALUES)
    if rng.random() < 0.03:
        del words[rng.randrange(len(words))]
    if rng.random() < 0.03:
        words.insert(rng.randrange(len(words) + 1), rng.choice(_VALUES))
    return words


def _run(main: Callable[[], None], work: Path, words: list[str]) -> None:
    """Run a command in its folder, which is also its user's home.

    Raises:
        SystemExit: as the command does.
    """
    with contextlib.chdir(work), _without_heavy_work(work), contextlib.suppress(_HeavyWorkError):
        run_command(main, words)


@contextlib.contextmanager
def _without_heavy_work(work: Path) -> Iterator[None]:
    """End a command where it would train, evaluate or draw, or would change this process."""

    def heavy(*_: object, **__: object) -> None:
        raise _HeavyWorkError

    def start_of(config: Config, *arguments: object) -> None:
        if config.output.resume:  # what is read then may be refused
            initial.start_of(config, *arguments)  # pyright: ignore[reportArgumentType]
        raise _HeavyWorkError

    draw = sample.sample_pixels

    def sample_pixels(model: object, key: object, num: int, **how: object) -> np.ndarray:
        if num < _MANY_SAMPLES:
            raise _HeavyWorkError
        return draw(model, key, num, **how)  # pyright: ignore[reportArgumentType]

    nothing = mock.Mock()
    with (
        mock.patch.dict(os.environ, {"HOME": str(work), "XDG_CACHE_HOME": str(work / "cache")}),
        mock.patch.object(trainer, "start_of", start_of),
        mock.patch.object(train, "make_virtual_devices", nothing),
        mock.patch.object(train, "join_processes", nothing),
        mock.patch.object(train, "use_cpu", nothing),
        mock.patch.object(evaluate, "evaluate", heavy),
        mock.patch.object(evaluate, "compare_with", _compare_with(heavy)),
        mock.patch.object(sample, "sample_pixels", sample_pixels),
        mock.patch.object(constants, "HF_HUB_OFFLINE", True),
        mock.patch.object(to_hub, "contents_of_run", heavy),
        mock.patch.object(export_folder, "Proof", heavy),
        mock.patch.object(directions, "between", heavy),
        mock.patch.object(walk, "noise_of", heavy),
        mock.patch.object(walk, "look", heavy),
    ):
        yield


def _compare_with(heavy: Callable[..., None]) -> Callable[..., None]:
    from glow_jax.cli import ood

    def compare_with(*arguments: object, **how: object) -> None:
        with mock.patch.object(ood, "_carry_out", heavy):
            ood.compare_with(*arguments, **how)  # pyright: ignore[reportArgumentType]

    return compare_with
