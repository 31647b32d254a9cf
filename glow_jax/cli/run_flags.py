"""The flags of every command that takes a trained run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from glow_jax.hub import load_run
from glow_jax.runs import LoadedRun


@dataclass(frozen=True)
class RunFlags:
    """Which weights of which run."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder, model folder, or user/name on the Hugging Face Hub"""
    step: int | Literal["best"] | None = None
    """checkpoint: a step's number, or best on the validation split; by default the newest"""
    average: bool = True
    """take the averaged parameters if the run keeps them; --no_average takes those in training"""

    def load(self) -> LoadedRun:
        """Load the run.

        Raises:
            GlowError: as for `glow_jax.load`.
        """
        return load_run(self.run, self.step, average=self.average)
