"""The progress of an epoch: a checkpoint inside an epoch needs it to continue exactly."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from glow_jax.errors import GlowError
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
    """Read what `Progress.to_json` returned; absent fields take their defaults.

    Raises:
        GlowError: it is no progress of a run.
    """
    damage = GlowError("The checkpoint's record of the progress of training is damaged.")
    try:
        epoch = EpochProgress(**(noted.get("epoch") or {}))
        progress = dataclasses.replace(Progress(), **{**noted, "epoch": epoch})
        sums = (epoch.bits_per_dim, epoch.loss, epoch.gradient_norm, *epoch.seconds.values())
        phases = set(epoch.seconds)
    except (TypeError, AttributeError):
        raise damage from None
    counts = [progress.skipped, progress.skipped_in_a_row, epoch.steps, epoch.applied]
    counts += [] if progress.epochs is None else [progress.epochs]
    if not all(type(count) is int and 0 <= count < 2**31 for count in counts):
        raise damage
    if phases != set(PHASES) or not all(type(value) in (int, float) for value in sums):
        raise damage
    return progress
