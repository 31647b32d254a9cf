"""The layout of a run folder, and which of its checkpoints are complete.

    RUN/hparams.json                    the configuration, and the format's version
    RUN/data.json                       the number, the classes and a fingerprint of the images
    RUN/metrics.jsonl                   one line per epoch
    RUN/results.json                    what `eval.py` found
    RUN/license.json                    that of weights from a model folder
    RUN/samples/  RUN/tensorboard/      pictures and curves
    RUN/tracking.json                   the id by which other trackers know the run
    RUN/wandb/                          what Weights & Biases keeps there
    RUN/export/                         the model as programs of other formats
    RUN/ood/                            comparisons with other data sets
    RUN/directions/                     directions in latent space, by `glow-jax directions`
    RUN/set_aside/                      checkpoints that are no longer used
    RUN/checkpoints/STEP/model          parameters and untrained state
    RUN/checkpoints/STEP/average        averaged parameters, where --ema_decay is on
    RUN/checkpoints/STEP/optimizer      the optimizer's state
    RUN/checkpoints/STEP/progress       the progress of training
    RUN/checkpoints/STEP/origin.json    the step's number, and the configuration it depends on
    RUN/checkpoints/STEP/validation.json    bits/dim on the validation split, once known
    RUN/checkpoints/STEP/sha256.json    digests of all these files, written last

A step is complete once its digests are there, and it loads only if they still match. If several
processes train, they share the folder: all take part in saving, and the first writes the digests.
"""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from glow_jax.errors import GlowError
from glow_jax.files import unused
from glow_jax.runs.digests import DIGESTS, check_number, read_score
from glow_jax.runs.hparams import HPARAMS, read_config
from glow_jax.runs.inside import set_aside
from glow_jax.runs.lock import LOCK, locked

CHECKPOINTS = "checkpoints"

WhichStep = int | Literal["best"] | None
"""A step's number; "best" for the best on the validation split; None for the newest."""


def step_folder(folder: Path, step: int) -> Path:
    """The folder of a step's files."""
    return folder / CHECKPOINTS / str(step)


def whole_steps(folder: Path) -> list[int]:
    """The completely saved steps of a run folder, oldest first."""
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir():  # nor is a path with a NUL byte, which glob refuses since 3.13
        return []
    directories = (path.parent for path in checkpoints.glob(f"*/{DIGESTS}"))
    return sorted(int(path.name) for path in directories if _is_step(path))


def _is_step(path: Path) -> bool:
    """Whether a folder has the name of a step: a number as the program writes it."""
    return re.fullmatch("0|[1-9][0-9]{0,17}", path.name) is not None


def choose_step(folder: Path, step: WhichStep) -> int:
    """The number of the requested step.

    Raises:
        GlowError: the run has no such step.
    """
    steps = whole_steps(folder)
    if not steps:
        raise GlowError(f"{folder} has no checkpoint.")
    if step is None:
        return steps[-1]
    if step == "best":
        best = best_step(folder)
        if best is None:
            raise GlowError(f"{folder} has no best step: it was trained without --validation.")
        return best
    if step not in steps:
        raise GlowError(f"{folder} has no step {step}; it has {', '.join(map(str, steps))}.")
    return step


def best_step(folder: Path) -> int | None:
    """The complete step with the lowest validation bits/dim; None if no bits/dim are known.

    Raises:
        GlowError: a file that decides which step it is was damaged.
    """
    return _lowest({step: score_of(folder, step) for step in whole_steps(folder)})


def _lowest(scores: Mapping[int, float | None]) -> int | None:
    known = {step: score for step, score in scores.items() if score is not None}
    return min(known, key=lambda step: known[step], default=None)


def score_of(folder: Path, step: int) -> float | None:
    """A step's bits/dim on the validation split; None if not known.

    Raises:
        GlowError: a file that decides it was damaged.
    """
    check_number(step_folder(folder, step))
    return read_score(step_folder(folder, step))


def best_or_doubtful(folder: Path) -> set[int]:
    """The best step, and those whose scores are damaged, any of which may be the best."""
    scores, doubtful = {}, set()
    for step in whole_steps(folder):
        try:
            scores[step] = score_of(folder, step)
        except GlowError:
            doubtful.add(step)
    best = _lowest(scores)
    return doubtful if best is None else doubtful | {best}


def set_aside_after(folder: Path, step: int) -> None:
    """Move the checkpoints after `step` to RUN/set_aside, so that a run can resume at `step`."""
    _set_aside(folder, lambda number: number > step)


def set_aside_unfinished(folder: Path) -> None:
    """Move the checkpoints that were not completely saved to RUN/set_aside."""
    _set_aside(folder, lambda step: not (step_folder(folder, step) / DIGESTS).exists())


def _set_aside(folder: Path, chosen: Callable[[int], bool]) -> None:
    for path in sorted((folder / CHECKPOINTS).glob("*")):
        if _is_step(path) and chosen(int(path.name)):
            set_aside(folder, path)


def check_folder(folder: Path, *, resume: bool, fresh: bool) -> None:
    """Refuse an output folder that is not empty, unless it will be resumed or moved aside.

    Raises:
        GlowError: the folder is not empty, or there is no run to resume.
    """
    if resume:
        read_config(folder)
    elif _occupied(folder) and not fresh:
        raise GlowError(
            f"{folder} is not empty: continue that run with --resume, move it aside with --fresh, "
            "or give another --output_dir."
        )


def _occupied(folder: Path) -> bool:
    if not folder.exists():
        return False
    # A kill may leave the lock and a half-written configuration, which can be overwritten.
    nothing = re.compile(rf"{re.escape(LOCK)}|\.{re.escape(HPARAMS)}\.\d+\.part")
    return not folder.is_dir() or not all(nothing.fullmatch(path.name) for path in folder.iterdir())


def make_folder(folder: Path, *, fresh: bool) -> None:
    """Make an output folder; with `fresh`, move an old one aside. Nothing is ever deleted.

    Raises:
        GlowError: the folder cannot be written, or is in use by another run.
    """
    try:
        if fresh and _occupied(folder):
            aside = unused(folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
            with locked(folder) if folder.is_dir() else nullcontext():
                folder.rename(aside)
            print(f"moved the old {folder} to {aside}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GlowError(f"{folder} cannot be written: {error.strerror}.") from error
