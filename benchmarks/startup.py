"""How long programs take to start, cold and with kept compilations.

python benchmarks/startup.py        (the published size, batch 16)

Everything is started in pairs, with a cache folder that is empty the first time; the median of
three pairs counts. Of train.py, on random images, the progress bar is read to the end of the first
step, and what a warm step and a warm pass of the actnorm initialisation take is taken off. Of
eval.py and sample.py, what the same computation takes in a warm process is taken off. The rest is
Python, imports, tracing and compiling. The README's lines of Python, with a model of the size that
it trains, and imports are timed whole. Prints tables in Markdown; writes them as JSON.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from figures import FOLDER, markdown, write
from flax import nnx

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config import Config, DataConfig, ModelConfig
from glow_jax.config.presets import PRESETS
from glow_jax.data import load_dataset
from glow_jax.devices import Devices
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import evaluate
from glow_jax.evaluation.samples import sample_pixels
from glow_jax.model import Glow, initialise_actnorm
from glow_jax.runs import load_run, save_weights

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "train.py"
README = REPOSITORY / "README.md"
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
    output: Path = FOLDER / "startup.json"


def config_of(arguments: Arguments) -> ModelConfig:
    """The model that is started."""
    return ModelConfig(
        K=arguments.K,
        L=arguments.L,
        hidden_channels=arguments.hidden_channels,
        image_shape=(IMAGE_SIZE, IMAGE_SIZE, 3),
        y_classes=0,
    )


def random_model(config: ModelConfig) -> Glow:
    """A model with random parameters."""
    return jax.jit(lambda key: Glow(config, rngs=nnx.Rngs(key)))(jax.random.key(0))


def warm(compute: Callable[[], object]) -> float:
    """Seconds that a computation takes the second time."""
    jax.block_until_ready(compute())
    started = time.perf_counter()
    jax.block_until_ready(compute())
    return time.perf_counter() - started


def initialisation(arguments: Arguments) -> float:
    """Seconds that a warm pass of the actnorm initialisation takes."""
    model = random_model(config_of(arguments))
    images = arguments.batch_size * arguments.n_init_batches
    x = jax.random.uniform(jax.random.key(1), (images, *model.config.image_shape))
    return warm(lambda: initialise_actnorm(model, x))


def with_cache(folder: Path) -> dict[str, str]:
    """The environment of a program that keeps its compilations in a folder."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "TQDM_MININTERVAL": "0"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    return environment | {"PYTHONPATH": str(REPOSITORY)}


def start(arguments: Arguments, folder: Path, name: str, cache: Path) -> tuple[float, float]:
    """Seconds from the start of train.py to the end of its first step, and those of a warm one."""
    flags = (
        f"{SCRIPT} --dataset {folder / 'noise.npz'} --validation 0 --epochs 1"
        f" --K {arguments.K} --L {arguments.L} --hidden_channels {arguments.hidden_channels}"
        f" --batch_size {arguments.batch_size} --eval_batch_size {arguments.batch_size}"
        f" --n_init_batches {arguments.n_init_batches} --memory {arguments.memory}"
        f" --output_dir {folder / name}"
    )
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *flags.split()],
        env=with_cache(cache),
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


def whole(command: Sequence[str], folder: Path, cache: Path) -> float:
    """Seconds that a Python program takes, started in a folder."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=with_cache(cache),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def readme_lines() -> str:
    """The README's lines of Python that load `runs/digits`."""
    _, _, after = README.read_text().partition("## Fifteen lines of Python\n\n```python\n")
    return after.partition("```")[0]


def computing_seconds(run: Path, arguments: Arguments) -> dict[str, float]:
    """Seconds that warm runs of what eval.py and sample.py compute take."""
    loaded, devices = load_run(run), Devices()
    dataset = load_dataset(loaded.config.data)
    model, key = loaded.model, jax.random.key(0)
    return {
        "eval.py": warm(lambda: evaluate(loaded, dataset, devices=devices).likelihood.mean),
        "sample.py": warm(lambda: sample_pixels(model, key, arguments.batch_size, temperature=0.7)),
    }


def programs(arguments: Arguments, folder: Path) -> dict[str, dict[str, float | None]]:
    """Seconds of everything but train.py, by its name; None where no computing is taken off."""
    data = DataConfig(dataset=str(folder / "noise.npz"))
    training = replace(Config().training, eval_batch_size=arguments.batch_size)
    config = Config(model=config_of(arguments), data=data, training=training)
    save_weights(folder / "run", config, random_model(config.model))
    digits = PRESETS["digits"]
    digits = replace(digits, model=replace(digits.model, image_shape=(8, 8, 1)))
    save_weights(folder / "runs" / "digits", digits, random_model(digits.model))
    num = str(arguments.batch_size)
    commands = {
        "import jax": ["-c", "import jax"],
        # The package imports what it is asked for: `import glow_jax` alone is nothing.
        "from glow_jax import Glow": ["-c", "from glow_jax import Glow"],
        "the README's lines": ["-c", readme_lines()],
        "eval.py": [str(REPOSITORY / "eval.py"), "run"],
        "sample.py": [str(REPOSITORY / "sample.py"), "run", "--num", num],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for attempt in range(arguments.attempts):
        for name, command in commands.items():
            cache = folder / f"cache of {name} {attempt}"
            cold, again = (whole(command, folder, cache) for _ in range(2))
            found[name].append((cold, again))
    computing = computing_seconds(folder / "run", arguments)
    rows = {}
    for name, pairs in found.items():
        cold, again = (float(value) for value in np.median(pairs, axis=0))
        compute = computing.get(name)
        off = compute or 0.0
        rows[name] = {"cold": cold - off, "warm": again - off, "computing": compute}
    return rows


def training_table(results: Mapping[str, Any]) -> str:
    """The starts of train.py, in Markdown."""
    columns = ("", "first step ends after, s", "a warm step, s", "actnorm pass, s", "start-up, s")
    return markdown(columns, [_cells(*row) for row in results["rows"].items()])


def programs_table(results: Mapping[str, Any]) -> str:
    """The starts of everything else, in Markdown."""
    columns = ("", "cold, s", "warm, s", "computing taken off, s")
    return markdown(columns, [_cells(*row) for row in results["programs"].items()])


def _cells(name: str, seconds: Mapping[str, float | None]) -> list[str]:
    return [name, *("-" if value is None else f"{value:.1f}" for value in seconds.values())]


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
        others = programs(arguments, folder)
    actnorm = initialisation(arguments)
    rows = {}
    for run, starts in found.items():
        first, step = (float(value) for value in np.median(starts, axis=0))
        rows[run] = {"first": first, "step": step, "actnorm": actnorm}
        rows[run]["start_up"] = float(np.median([a - b for a, b in starts])) - actnorm
    results = {"rows": rows, "programs": others}
    write(arguments.output, **results)
    print(f"{training_table(results)}\n{programs_table(results)}")


if __name__ == "__main__":
    main()
