"""The run folder, the devices and the processes."""

import re
from dataclasses import dataclass

from glow_jax.config.checks import require
from glow_jax.errors import GlowError


@dataclass(frozen=True)
class OutputConfig:
    """Where the run computes, and where its files go."""

    output_dir: str = "output/"
    """run folder"""
    fresh: bool = False
    """move an existing output folder aside and start over"""
    resume: bool = False
    """continue the run in the output folder"""
    step: int | None = None
    """step to resume from; by default the newest; later checkpoints are set aside"""
    devices: int = 0
    """devices of this machine to train on (on a CPU, virtual ones); 0 = all"""
    cuda: bool = True
    """use a GPU or TPU if there is one; --no_cuda trains on the CPU"""
    checkpoint_every: str = ""
    """also save every N steps (500) or minutes (10m), not only after each epoch"""
    wandb: bool = False
    """also log to Weights & Biases, if it is installed: offline, in the run folder, unless
    WANDB_MODE is set"""
    trackio: bool = False
    """also log to Trackio, if it is installed: in its own folder on this machine"""
    coordinator: str = ""
    """HOST:PORT of process 0, to train in several processes; on clusters JAX finds it itself"""
    num_processes: int = 0
    """number of processes that train together (needs coordinator)"""
    process_id: int | None = None
    """number of this process, from 0 (needs coordinator)"""

    def __post_init__(self) -> None:
        """Check every value."""
        require(0 <= self.devices <= 4096, "devices", self.devices, "0 (all), or at most 4096")
        require(
            re.fullmatch(r"([1-9][0-9]{0,8}m?)?", self.checkpoint_every) is not None,
            "checkpoint_every",
            repr(self.checkpoint_every),
            "a number of steps (500) or of minutes (10m)",
        )
        self._check_processes()
        if self.fresh and self.resume:
            raise GlowError("--fresh starts over and --resume goes on: give one of them.")
        require(self.resume or self.step is None, "step", self.step, "given with --resume")

    def _check_processes(self) -> None:
        if not self.coordinator:
            together = "left out if coordinator is"
            require(self.num_processes == 0, "num_processes", self.num_processes, together)
            require(self.process_id is None, "process_id", self.process_id, together)
            return
        host, _, port = self.coordinator.rpartition(":")
        require(
            bool(host) and re.fullmatch("[0-9]{1,5}", port) is not None,
            "coordinator",
            self.coordinator,
            "HOST:PORT",
        )
        count = self.num_processes
        require(count >= 1, "num_processes", count, "at least 1 if coordinator is given")
        require(
            self.process_id is not None and 0 <= self.process_id < count,
            "process_id",
            self.process_id,
            f"from 0 to {count - 1}",
        )

    @property
    def checkpoint_steps(self) -> int:
        """Steps between checkpoints; 0 if the interval is not in steps."""
        return int(self.checkpoint_every) if self.checkpoint_every.isdigit() else 0

    @property
    def checkpoint_minutes(self) -> int:
        """Minutes between checkpoints; 0 if the interval is not in minutes."""
        return int(self.checkpoint_every[:-1]) if self.checkpoint_every.endswith("m") else 0
