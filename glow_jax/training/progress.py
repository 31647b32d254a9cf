"""The progress of an epoch: a checkpoint inside an epoch needs it to continue exactly."""

import dataclasses
import resource
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from glow_jax.training.step import Metrics

PHASES = ("reading", "training", "evaluating", "sampling", "saving")


@dataclass
class EpochProgress:
    """The steps of one epoch so far, as sums: a mean does not depend on where the epoch stopped.

    Attributes:
        steps: steps done.
        applied: steps whose update was not skipped; the sums are over these.
        bits_per_dim: sum of bits/dim.
        loss: sum of losses.
        gradient_norm: sum of gradient norms.
        seconds: time in each phase since the last line of metrics.
    """

    steps: int = 0
    applied: int = 0
    bits_per_dim: float = 0.0
    loss: float = 0.0
    gradient_norm: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def add(self, metrics: Metrics) -> None:
        """Count a step."""
        self.steps += 1
        if not metrics.skipped_in_a_row:
            self.applied += 1
            self.bits_per_dim += float(metrics.bits_per_dim)
            self.loss += float(metrics.loss)
            self.gradient_norm += float(metrics.gradient_norm)

    def mean(self, name: str) -> float | None:
        """Mean over the steps that were not skipped; None if all were, as JSON has no NaN."""
        return getattr(self, name) / self.applied if self.applied else None

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of the `with` block to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started


@dataclass(frozen=True)
class Progress:
    """The progress of a run that a checkpoint stores, besides the step.

    Attributes:
        skipped: updates skipped so far.
        skipped_in_a_row: updates skipped since the last one that was applied.
        epochs: finished epochs; None if a converted checkpoint does not say.
        epoch: the progress of the next epoch.
    """

    skipped: int = 0
    skipped_in_a_row: int = 0
    epochs: int | None = None
    epoch: EpochProgress = field(default_factory=EpochProgress)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return dataclasses.asdict(self)


def progress_of(noted: Mapping[str, Any]) -> Progress:
    """Read what `Progress.to_json` returned; absent fields take their defaults."""
    epoch = EpochProgress(**(noted.get("epoch") or {}))
    return dataclasses.replace(Progress(), **{**noted, "epoch": epoch})


class StepBar:
    """The progress bar of an epoch: recent bits/dim, and images per second."""

    def __init__(self, name: str, steps: int, *, images: int, shown: bool):
        """Open a bar of `steps` steps with `images` images each."""
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
    """Peak memory so far, in bytes: of this process, and of the first device if it reports it."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_memory": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        peak["peak_device_memory"] = statistics["peak_bytes_in_use"]
    return peak
