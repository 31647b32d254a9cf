"""The layout of a run folder, and which of its checkpoints are complete.

    RUN/hparams.json                    the configuration, and the format's version
    RUN/data.json                       the number, the classes and a fingerprint of the images
    RUN/metrics.jsonl                   one line per epoch
    RUN/results.json                    what `eval.py` found
    RUN/samples/  RUN/tensorboard/      pictures and curves
    RUN/ood/                            comparisons with other data sets
    RUN/set_aside/                      checkpoints that are no longer used
    RUN/checkpoints/STEP/model          parameters and untrained state
    RUN/checkpoints/STEP/average        averaged parameters, where --ema_decay is on
    RUN/checkpoints/STEP/optimizer      the optimizer's state
    RUN/checkpoints/STEP/progress       the progress of training
    RUN/checkpoints/STEP/validation.json    bits/dim on the validation split, once known
    RUN/checkpoints/STEP/sha256.json    digests of all these files, written last

A step is complete once its digests are there, and it loads only if they still match. If several
processes train, they share the folder: all take part in saving, and the first writes the digests.
"""

import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from glow_jax.errors import GlowError
from glow_jax.files import unused
from glow_jax.runs.digests import DIGESTS, read_digests
from glow_jax.runs.hparams import HPARAMS, read_config
from glow_jax.runs.lock import LOCK

CHECKPOINTS = "checkpoints"
VALIDATION = "validation.json"

WhichStep = int | Literal["best"] | None
"""A step's number; "best" for the best on the validation split; None for the newest."""


def step_folder(folder: Path, step: int) -> Path:
    """The folder of a step's files."""
    return folder / CHECKPOINTS / str(step)


def whole_steps(folder: Path) -> list[int]:
    """The completely saved steps of a run folder, oldest first."""
    directories = (folder / CHECKPOINTS).glob(f"*/{DIGESTS}")
    return sorted(int(path.parent.name) for path in directories if path.parent.name.isdigit())


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
    """The complete step with the lowest validation bits/dim; None if no bits/dim are known."""
    scores = {step: _validation(folder, step) for step in whole_steps(folder)}
    best = min(scores, key=lambda step: scores[step], default=None)
    return None if best is None or math.isinf(scores[best]) else best


def _validation(folder: Path, step: int) -> float:
    """A step's bits/dim on the validation split; infinite if not known."""
    directory = step_folder(folder, step)
    # A score without a digest was not written to the end.
    if VALIDATION not in read_digests(directory):
        return math.inf
    try:
        return json.loads((directory / VALIDATION).read_text())["bits_per_dim"]
    except (OSError, ValueError, KeyError) as error:
        raise GlowError(f"Checkpoint file {directory / VALIDATION} is damaged.") from error


def set_aside_after(folder: Path, step: int) -> None:
    """Move the checkpoints after `step` to RUN/set_aside, so that a run can resume at `step`."""
    _set_aside(folder, lambda number: number > step)


def set_aside_unfinished(folder: Path) -> None:
    """Move the checkpoints that were not completely saved to RUN/set_aside."""
    _set_aside(folder, lambda step: not (step_folder(folder, step) / DIGESTS).exists())


def _set_aside(folder: Path, chosen: Callable[[int], bool]) -> None:
    for path in sorted((folder / CHECKPOINTS).glob("*")):
        if path.name.isdigit() and chosen(int(path.name)):
            aside = unused(folder / "set_aside" / path.name)
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)


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
        GlowError: the folder cannot be written.
    """
    try:
        if fresh and _occupied(folder):
            aside = unused(folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
            folder.rename(aside)
            print(f"moved the old {folder} to {aside}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GlowError(f"{folder} cannot be written: {error.strerror}.") from error
