"""What a benchmark was measured on."""

import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jax


def threads() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Processor or accelerator, threads, and versions."""
    device = jax.devices()[0]
    kind = _processor() if device.platform == "cpu" else device.device_kind
    found = (name for name in ("jax", "torch", "numpy") if find_spec(name))
    packages = ", ".join(f"{name} {version(name)}" for name in found)
    return f"{kind}, {threads()} threads; {packages}, Python {platform.python_version()}"


class Side:
    """Finds out in a process of its own, which gives the device's memory back when it ends."""

    def machine(self) -> str:
        """As the function."""
        return machine()

    def platform(self) -> str:
        """Where JAX computes: "cpu", "gpu" or "tpu"."""
        return jax.devices()[0].platform

    def card(self) -> str:
        """The accelerator's name."""
        return jax.devices()[0].device_kind

    def without_reference(self) -> str | None:
        """Why the PyTorch reference cannot compute where JAX does; None if it can."""
        if find_spec("torch") is None:
            return "PyTorch is not installed: pip install -e '.[torch]'."
        import torch

        if self.platform() == "cpu" or torch.cuda.is_available():
            return None
        if torch.version.cuda is None and torch.version.hip is None:
            return (
                f"PyTorch {torch.__version__} is built for CPUs only: install its build for GPUs."
            )
        return f"PyTorch {torch.__version__} finds no GPU, though JAX does: is the driver too old?"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
