"""A checkpoint of another program, converted, and the run folder that is made of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optax

from glow_jax.config import Config
from glow_jax.files import whole_folder
from glow_jax.model import Glow
from glow_jax.runs import save_weights


@dataclass(frozen=True)
class Conversion:
    """A converted file.

    Attributes:
        layout: name of the program whose layout the file has.
        values: its weights in Glow-PyTorch's layout.
        model: the JAX model of these weights.
        config: the configuration of a run that would produce the model.
        optimizer_state: the state of `make_optimizer(config.optimizer, ...)`, or None.
        step: the number of updates done, 0 if no optimizer's state tells.
        notes: what the conversion changed, one sentence each.
        average: the model of its averaged weights, if it holds them.
        average_values: the weights of `average`, as `values` of `model`.
        names_images: whether the data set of `config` is the one that the model was trained on.
    """

    layout: str
    values: dict[str, np.ndarray]
    model: Glow
    config: Config
    optimizer_state: optax.OptState | None
    step: int
    notes: list[str]
    average: Glow | None = None
    average_values: dict[str, np.ndarray] | None = None
    names_images: bool = True

    def save(self, folder: Path) -> None:
        """Write a run folder that appears whole or not at all.

        Raises:
            GlowError: it is not empty, or there is no room for it.
            OSError: it cannot be made at this place.
        """
        with whole_folder(folder) as aside:
            save_weights(
                aside,
                self.config,
                self.model,
                average=self.average,
                optimizer_state=self.optimizer_state,
                step=self.step,
            )
