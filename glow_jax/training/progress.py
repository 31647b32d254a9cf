"""How far an epoch has come: what a checkpoint in the middle of it must know to go on exactly."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from glow_jax.training.step import Metrics

PHASES = ("reading", "training", "evaluating", "sampling", "saving")


@dataclass
class EpochProgress:
    """The steps of one epoch so far: sums, so that a mean does not depend on where it was cut.

    Attributes:
        steps: steps done.
        applied: of these, the ones whose update was not skipped, over which the sums go.
        bits_per_dim: sum.
        loss: sum.
        gradient_norm: sum.
        seconds: time spent in each phase since the last line of metrics.
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
        """Mean over the steps not skipped, or None where all were: NaN is no JSON."""
        return getattr(self, name) / self.applied if self.applied else None

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started


@dataclass(frozen=True)
class Progress:
    """What a checkpoint notes of its run's progress, beside the step.

    Attributes:
        skipped: updates skipped so far.
        skipped_in_a_row: the same since the last good update.
        epochs: whole epochs done; None where a converted checkpoint does not know.
        epoch: how far the next one has come.
    """

    skipped: int = 0
    skipped_in_a_row: int = 0
    epochs: int | None = None
    epoch: EpochProgress = field(default_factory=EpochProgress)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return dataclasses.asdict(self)


def progress_of(noted: Mapping[str, Any]) -> Progress:
    """What `Progress.to_json` returned; what is absent takes its default."""
    epoch = EpochProgress(**(noted.get("epoch") or {}))
    return dataclasses.replace(Progress(), **{**noted, "epoch": epoch})
