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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
