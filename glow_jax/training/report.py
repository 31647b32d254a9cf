"""What a run prints: at its start, and after each epoch."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.config import Config
from glow_jax.data import Dataset, Readable
from glow_jax.devices import Devices
from glow_jax.model import Glow
from glow_jax.training.optimizer import learning_rate
from glow_jax.training.progress import EpochProgress, peak_bytes

Values = Mapping[str, float | None]


def introduction(
    dataset: Dataset, images: Readable, validation: Readable, devices: Devices, seed: int
) -> str:
    """Describe the images, the devices and the seed of a run."""
    text = (
        f"{dataset.name}: {len(images)} training, {len(validation)} validation, "
        f"{len(dataset.test)} test images of {' x '.join(map(str, dataset.image_shape))}; "
        f"{devices}; seed {seed}"
    )
    return text if devices.remark is None else f"{text}\n{devices.remark}"


def size_of(model: Glow) -> str:
    """The number of a model's parameters."""
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return f"{count:,} parameters"


def epoch_values(
    progress: EpochProgress, config: Config, *, step: int, skipped: int, updates_per_epoch: int
) -> Values:
    """The metrics of an epoch other than its bits/dim.

    Args:
        progress: that of the whole epoch.
        config: the run.
        step: the number of steps done.
        skipped: the number of updates skipped among them.
        updates_per_epoch: the number of steps in an epoch.
    """
    schedule = learning_rate(config.optimizer, updates_per_epoch)
    seconds = {phase: round(value, 3) for phase, value in progress.seconds.items()}
    images = progress.steps * config.training.images_per_update
    return {
        "train_loss": progress.mean("loss"),
        "gradient_norm": progress.mean("gradient_norm"),
        "learning_rate": float(jnp.asarray(schedule(step - 1 - skipped))),
        "skipped_updates": skipped,
        "images_per_second": images / (seconds["reading"] + seconds["training"]),
        **{f"seconds_{phase}": value for phase, value in seconds.items()},
        **peak_bytes(),
    }


def epoch_line(epoch: int, epochs: int, bits_per_dim: Values, rest: Values) -> str:
    """Describe an epoch in one line."""
    shown = "  ".join(
        f"{name.split('_')[0]} {value:.3f}"
        for name, value in bits_per_dim.items()
        if value is not None
    )
    return f"epoch {epoch}/{epochs}  {shown} bits/dim  {rest['images_per_second']:.0f} images/s"
