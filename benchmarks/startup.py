"""How long `python train.py` takes to the end of its first step, cold and with kept compilations.

python benchmarks/startup.py        (the published size, batch 16)

Runs train.py in pairs on random images, with a cache folder that is empty the first time, and reads
its progress bar; the median of three pairs counts. What a warm step and a warm pass of the actnorm
initialisation take is taken off: the rest is Python, imports, tracing and compiling. Prints a table
in Markdown; writes it as JSON.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from machine import machine

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError
from glow_jax.files import write_json
from glow_jax.model import Glow, initialise_actnorm

SCRIPT = Path(__file__).parents[1] / "train.py"
IMAGE_SIZE = 32
STEPS = 4
BAR = re.compile(rf"\| (\d+)/{STEPS} \[")


@dataclass(frozen=True)
class Arguments:
    """What is started."""

    K: int = 32
    L: int = 3
    hidden_channels: int = 512
    batch_size: int = 16
    n_init_batches: int = 1
    memory: str = "remat"
    attempts: int = 3
    """pairs of starts, of which the median counts"""
    output: Path = Path("docs/benchmarks/startup.json")


def initialisation(arguments: Arguments) -> float:
    """Seconds that a warm pass of the actnorm initialisation takes."""
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    config = ModelConfig(
        K=arguments.K,
        L=arguments.L,
        hidden_channels=arguments.hidden_channels,
        image_shape=shape,
        y_classes=0,
    )
    model = jax.jit(lambda key: Glow(config, rngs=nnx.Rngs(key)))(jax.random.key(0))
    x = jax.random.uniform(
        jax.random.key(1), (arguments.batch_size * arguments.n_init_batches, *shape)
    )
    jax.block_until_ready(initialise_actnorm(model, x))
    started = time.perf_counter()
    jax.block_until_ready(initialise_actnorm(model, x))
    return time.perf_counter() - started


def start(arguments: Arguments, folder: Path, name: str, cache: Path) -> tuple[float, float]:
    """Seconds from the start of train.py to the end of its first step, and those of a warm one."""
    flags = (
        f"{SCRIPT} --dataset {folder / 'noise.npz'} --validation 0 --epochs 1"
        f" --K {arguments.K} --L {arguments.L} --hidden_channels {arguments.hidden_channels}"
        f" --batch_size {arguments.batch_size} --eval_batch_size {arguments.batch_size}"
        f" --n_init_batches {arguments.n_init_batches} --memory {arguments.memory}"
        f" --output_dir {folder / name}"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TQDM_MININTERVAL": "0"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *flags.split()],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    printed, reached = "", {}
    while (character := process.stderr.read(1)) and STEPS not in reached:
        printed += character
        for step in BAR.findall(printed[-200:]):
            reached.setdefault(int(step), time.perf_counter() - started)
    process.kill()  # what follows the steps, evaluation and samples, is not measured
    process.communicate()
    if 1 not in reached or STEPS not in reached:
        raise GlowError(f"train.py did not get to step {STEPS}; it printed: {printed[-500:]}")
    return reached[1], (reached[STEPS] - reached[1]) / (STEPS - 1)


@one_line_errors
def main() -> None:
    """Start twice, print, write."""
    arguments = parse(Arguments)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        shape = (STEPS * arguments.batch_size, IMAGE_SIZE, IMAGE_SIZE, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        np.savez(folder / "noise.npz", images=images, test_images=images[: arguments.batch_size])
        found = {"cold": [], "warm": []}
        for attempt in range(arguments.attempts):
            cache = folder / f"cache{attempt}"
            for run, starts in found.items():
                starts.append(start(arguments, folder, f"{run}{attempt}", cache))
    actnorm = initialisation(arguments)
    print("| | first step ends after, s | a warm step, s | actnorm pass, s | start-up, s |")
    print("|---|---|---|---|---|")
    rows = {}
    for run, starts in found.items():
        first, step = (float(value) for value in np.median(starts, axis=0))
        rows[run] = {"first": first, "step": step, "actnorm": actnorm}
        rows[run]["start_up"] = float(np.median([a - b for a, b in starts])) - actnorm
        cells = " | ".join(f"{value:.1f}" for value in rows[run].values())
        print(f"| {run} | {cells} |", flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
