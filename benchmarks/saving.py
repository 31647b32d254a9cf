"""How long training waits for a checkpoint, and when that is whole.

python benchmarks/saving.py        (the published size, with the optimizer's state)

Saves three checkpoints into a folder for temporary files, one after the other, and writes the times
as JSON.
"""

import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
from figures import FOLDER, write
from flax import nnx

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config import Config, ModelConfig
from glow_jax.model import Glow
from glow_jax.runs import CheckpointWriter
from glow_jax.training.optimizer import make_optimizer


@dataclass(frozen=True)
class Arguments:
    """What is saved."""

    model: ModelConfig = field(default_factory=ModelConfig)
    image_size: int = 32
    output: Path = FOLDER / "saving.json"


@one_line_errors
def main() -> None:
    """Save, print a line for each checkpoint, write."""
    arguments = parse(Arguments)
    side = arguments.image_size
    config = Config(model=replace(arguments.model, image_shape=(side, side, 3)))
    key = jax.random.key(0)
    model = jax.jit(lambda key: Glow(config.model, rngs=nnx.Rngs(key)))(key)
    params = nnx.state(model, nnx.Param)
    state = make_optimizer(config.optimizer, 1).init(params)
    jax.block_until_ready(state)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{parameters:,} parameters")
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        CheckpointWriter(Path(folder), keep_best=False) as writer,
    ):
        for step in range(3):
            started = time.perf_counter()
            writer.save(step, model, optimizer_state=state)
            waited = time.perf_counter() - started
            writer.wait()
            whole = time.perf_counter() - started
            print(f"training waits {waited:.2f} s; whole after {whole:.2f} s", flush=True)
            rows.append({"waited": waited, "whole": whole})
    write(arguments.output, parameters=parameters, rows=rows)


if __name__ == "__main__":
    main()
