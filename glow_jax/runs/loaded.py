"""A loaded checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glow_jax.config import Config
from glow_jax.model import Glow
from glow_jax.runs.data import RunData, read_data
from glow_jax.runs.license import read_license


@dataclass(frozen=True)
class LoadedRun:
    """A loaded checkpoint of a run folder.

    Attributes:
        folder: the run folder.
        config: the run's configuration.
        step: the number of updates before the checkpoint.
        model: the model as trained.
        average: the model with averaged parameters, if the run keeps them and they were asked for.
        has_optimizer: whether the checkpoint holds an optimizer's state.
        progress: the progress of training; see `glow_jax.training.progress`.
    """

    folder: Path
    config: Config
    step: int
    model: Glow
    average: Glow | None
    has_optimizer: bool
    progress: Mapping[str, object]

    @property
    def average_or_model(self) -> Glow:
        """The model to evaluate and sample with: the average if there is one."""
        return self.average or self.model

    @property
    def title(self) -> str:
        """The step and the kind of `average_or_model`, as they are printed."""
        return f"step {self.step}" + ("" if self.average is None else ", averaged parameters")

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.folder)

    @property
    def data(self) -> RunData | None:
        """What it remembers of its images; None if it is too old to know them.

        Raises:
            GlowError: the file that holds it is damaged.
        """
        return read_data(self.folder)

    @property
    def license(self) -> str | None:
        """The licence of its weights, by an identifier of the hub's; None if it does not know.

        Raises:
            GlowError: the file that holds it is damaged.
        """
        return read_license(self.folder)
