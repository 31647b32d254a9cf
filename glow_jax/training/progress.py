"""How far an epoch has come: what a checkpoint in the middle of it must know to go on exactly."""

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import dataclasses
from dataclasses import dataclass, field

import jax

from glow_jax.training.step import Metrics

_Value = int | float | dict[str, float]
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

    @classmethod
    def from_json(cls, values: Mapping[str, _Value] | None) -> "EpochProgress":
        """What `to_json` returned; a new epoch for None."""
        return dataclasses.replace(cls(), **(values or {}))

    def to_json(self) -> dict[str, _Value]:
        """Plain values."""
        return dataclasses.asdict(self)

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


def peak_bytes() -> dict[str, int]:
    """The most memory in use so far, in bytes: of this process, and of a device that tells."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_memory": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        peak["peak_device_memory"] = statistics["peak_bytes_in_use"]
    return peak
