"""How long the demo's page takes for a frame: a slider moves, an edited image is there as HTML.

python benchmarks/frames.py           (two minutes on two cores)

The shipped model, and models with random weights: at 64 x 64 with its width, and of the size that
the paper has for faces. The browser's share and the way to it are left out. The median of 30 frames
counts, each of another mix, after one that compiles. Prints a table in Markdown; writes it as JSON.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from figures import FOLDER, REPOSITORY, markdown, write
from flax import nnx

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config import Config, ModelConfig
from glow_jax.config.presets import PRESETS
from glow_jax.demo.desk import Desk
from glow_jax.demo.studio import open_studio
from glow_jax.hub import load_run
from glow_jax.model import Glow
from glow_jax.runs import save_weights

FRAMES = 30
FACES = PRESETS["celeba64"].model
MODELS = {
    "64 x 64, 64 hidden channels": dataclasses.replace(FACES, hidden_channels=64),
    "64 x 64, 512 hidden channels": FACES,
}


def milliseconds(folder: Path) -> dict[str, float]:
    """The median and the slowest frame of a run."""
    desk = Desk(open_studio(load_run(folder), None))
    first, second = (desk.end("draw", seed, None, None)[0] for seed in (0, 1))
    levels = range(1, desk.studio.model.config.L + 1)
    taken = []
    for mix in np.linspace(0, 1, FRAMES + 1):
        begin = time.perf_counter()
        desk.frame(first, second, float(mix), levels)
        taken.append(1000 * (time.perf_counter() - begin))
    return {"median_ms": statistics.median(taken[1:]), "slowest_ms": max(taken[1:])}


def random_run(folder: Path, model: ModelConfig) -> Path:
    """A run with random weights."""
    built = jax.jit(lambda key: Glow(model, rngs=nnx.Rngs(key)))(jax.random.key(0))
    save_weights(folder, Config(model=model), built)
    return folder


@dataclass(frozen=True)
class Arguments:
    """Measure the demo's frames."""


def table(found: Mapping) -> str:
    """The table in Markdown."""
    rows = (
        (name, f"{taken['median_ms']:.0f}", f"{taken['slowest_ms']:.0f}")
        for name, taken in found["models"].items()
    )
    return markdown(["model", "a frame, ms", f"slowest of {FRAMES}, ms"], rows)


@one_line_errors
def main() -> None:
    """Measure, print, write."""
    parse(Arguments)
    found = {"28 x 28, models/fashion_mnist": milliseconds(REPOSITORY / "models/fashion_mnist")}
    with tempfile.TemporaryDirectory() as place:
        for number, (name, model) in enumerate(MODELS.items()):
            found[name] = milliseconds(random_run(Path(place) / str(number), model))
    print(table({"models": found}))
    write(REPOSITORY / FOLDER / "frames.json", frames=FRAMES, models=found)


if __name__ == "__main__":
    main()
