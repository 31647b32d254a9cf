"""What a run prints: at its start, and after each epoch."""

import sys
import time
from collections import deque
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from glow_jax.config import Config
from glow_jax.data import Dataset, Readable
from glow_jax.devices import Devices
from glow_jax.training.optimizer import learning_rate
from glow_jax.training.progress import EpochProgress
from glow_jax.training.step import Metrics

# Classes named when a run starts; `data.json` has all of them.
_NAMED_CLASSES = 20

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
    if dataset.class_names:
        numbered = [f"{number} {name}" for number, name in enumerate(dataset.class_names)]
        more = ", ..." if len(numbered) > _NAMED_CLASSES else ""
        text += f"\nclasses: {', '.join(numbered[:_NAMED_CLASSES])}{more}"
    return text if devices.remark is None else f"{text}\n{devices.remark}"


def schedule_change(
    before: Config, after: Config, *, updates: int, updates_per_epoch: int
) -> str | None:
    """Say what becomes of the cosine schedule if a resumed run has other epochs than before.

    Args:
        before: the run as it was.
        after: the run as it goes on.
        updates: the number of updates applied so far.
        updates_per_epoch: the number of steps in an epoch.

    Returns:
        A sentence; None if the learning rate does not change.
    """
    was, now = before.training.epochs, after.training.epochs
    if after.optimizer.schedule == "constant" or was == now:
        return None
    old, new = (
        float(jnp.asarray(learning_rate(after.optimizer, updates_per_epoch, epochs)(updates)))
        for epochs in (was, now)
    )
    return (
        f"The cosine schedule now ends after {now} epochs instead of {was}: the learning rate goes "
        f"on at {new:.2e} instead of {old:.2e}, down to {after.optimizer.final_lr:g}."
    )


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
    schedule = learning_rate(config.optimizer, updates_per_epoch, config.training.epochs)
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


class StepBar:
    """The progress bar of an epoch: recent bits/dim, and images a second."""

    def __init__(self, name: str, steps: int, *, images: int, shown: bool):
        """Open a bar of so many steps, of so many `images` each."""
        self._bar = tqdm(total=steps, desc=name, unit="step", leave=False, disable=not shown)
        self._images = images
        self._recent: deque[float] = deque(maxlen=50)
        self._started, self._done = time.perf_counter(), 0

    def __enter__(self) -> "StepBar":
        """For use in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bar."""
        self._bar.close()

    def add(self, metrics: Metrics) -> None:
        """Count a step."""
        self._done += 1
        if not metrics.skipped_in_a_row:
            self._recent.append(float(metrics.bits_per_dim))
        shown = f"{np.mean(self._recent):.3f} bits/dim, " if self._recent else ""
        rate = self._done * self._images / (time.perf_counter() - self._started)
        self._bar.set_postfix_str(f"{shown}{rate:.0f} images/s", refresh=False)
        self._bar.update()


def peak_bytes() -> dict[str, int]:
    """The most memory in use so far, in bytes: of this process, and of a device that tells."""
    import resource  # absent on Windows, where no run comes this far

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_memory": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        peak["peak_device_memory"] = statistics["peak_bytes_in_use"]
    return peak
