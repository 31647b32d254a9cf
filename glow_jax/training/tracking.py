"""Trackers: where the numbers and pictures of a run are shown while it trains.

TensorBoard always is one. Weights & Biases and Trackio are others, if a run asks for them.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from glow_jax.config import Config, OutputConfig, to_json
from glow_jax.errors import GlowError, first_line
from glow_jax.runs import check_no_link, tracking_id

_PROJECT = "glow-jax"


class Tracker(Protocol):
    """Shows numbers and pictures of a run."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by their names."""
        ...

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 of shape (H, W, 3)."""
        ...

    def close(self) -> None:
        """Show everything that is still under way, and end."""
        ...


class Wandb:
    """Weights & Biases. Without `WANDB_MODE` it is offline: its files stay in RUN/wandb."""

    def __init__(self, wandb: ModuleType, folder: Path, run_id: str, config: Config):
        """Start a run, or go on with the run of this id.

        Raises:
            GlowError: RUN/wandb is a symbolic link.
        """
        check_no_link(folder / "wandb")
        self._wandb = wandb
        if os.environ.setdefault("WANDB_MODE", "offline") == "offline":
            # Its reports about itself go by the environment, not by what `init` is given.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run_id,
            name=folder.absolute().name,
            config=to_json(config),
            dir=folder,
            mode=os.environ["WANDB_MODE"],
            resume="allow",
            settings=wandb.Settings(console="off"),
        )
        # Its own count of steps only grows. A run that goes on from a checkpoint repeats steps.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by their names."""
        self._run.log({"step": step, **values})

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 of shape (H, W, 3)."""
        self._run.log({"step": step, name: self._wandb.Image(pixels)})

    def close(self) -> None:
        """Write everything to the disk, or send it, and end."""
        self._run.finish()


class Trackio:
    """Trackio, which keeps its files in the user's own cache.

    It sends them where `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` says, if the user has set one.
    """

    def __init__(self, trackio: ModuleType, folder: Path, run_id: str, config: Config):
        """Start a run, or go on with the run of this id."""
        self._trackio = trackio
        self._run = trackio.init(
            project=_PROJECT,
            name=f"{folder.absolute().name}-{run_id}",
            config=to_json(config),
            resume="allow",
            embed=False,
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by their names."""
        self._run.log(dict(values), step=step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 of shape (H, W, 3)."""
        self._run.log({name: self._trackio.Image(pixels)}, step=step)

    def close(self) -> None:
        """Write everything to the disk and end."""
        self._run.finish()


class _Forgiving:
    """A tracker of another library, whose failure is said once and does not end the training."""

    def __init__(self, name: str, tracker: Tracker):
        """Pass everything on to `tracker` until it fails."""
        self._name = name
        self._tracker: Tracker | None = tracker

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by their names."""
        self._try(lambda tracker: tracker.scalars(values, step))

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture, uint8 of shape (H, W, 3)."""
        self._try(lambda tracker: tracker.picture(name, pixels, step))

    def close(self) -> None:
        """End, if it has not failed."""
        self._try(lambda tracker: tracker.close())

    def _try(self, action: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except Exception as error:
            self._tracker = None
            print(
                f"warning: {self._name} has failed, and gets nothing more of this run: "
                f"{first_line(error)}.",
                file=sys.stderr,
                flush=True,
            )


_KINDS: dict[str, Callable[[ModuleType, Path, str, Config], Tracker]] = {
    "wandb": Wandb,
    "trackio": Trackio,
}


def check_trackers(output: OutputConfig) -> None:
    """Raise `GlowError` unless the libraries of the trackers that a run asks for are installed."""
    for name in _asked_for(output):
        _library(name)


def open_trackers(config: Config) -> list[Tracker]:
    """Open the trackers that a run asks for, to go on where they were.

    Args:
        config: the run; its folder keeps the id that the trackers know it by.

    Raises:
        GlowError: a library is not installed, or its tracker cannot be opened.
    """
    folder = Path(config.output.output_dir)
    trackers: list[Tracker] = []
    for name in _asked_for(config.output):
        library, run_id = _library(name), tracking_id(folder)
        try:
            tracker = _KINDS[name](library, folder, run_id, config)
        except GlowError:
            raise
        except Exception as error:  # another library's
            raise GlowError(f"--{name} cannot be used: {first_line(error)}.") from error
        trackers.append(_Forgiving(name, tracker))
    return trackers


def _asked_for(output: OutputConfig) -> list[str]:
    return [name for name in _KINDS if getattr(output, name)]


def _library(name: str) -> ModuleType:
    # The folder that Weights & Biases makes where it is called is a package without anything.
    with contextlib.suppress(ImportError):
        library = importlib.import_module(name)
        if hasattr(library, "init"):
            return library
    raise GlowError(f"--{name} needs its library: pip install {name}, or leave the flag out.")
