"""Model folders, for what loads one."""

import functools
import hashlib
import json
import random
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from glow_jax import Glow
from glow_jax.config import Config, DataConfig, ModelConfig
from glow_jax.hub import PublishedRun, in_a_file, load_run, save_run, values_for
from glow_jax.hub.model_folder import CONFIG, WEIGHTS
from glow_jax.runs import RunData

from .case import OUTSIDE, PRECIOUS, Case, check_finite, new_folder, quietly, rng_of
from .damage import damage_bytes, damage_file, damage_json, odd

RUN = Config(
    model=ModelConfig(K=1, L=1, hidden_channels=2, image_shape=(4, 4, 1), LU_decomposed=False),
    data=DataConfig(dataset="images.npz"),
)


@functools.cache
def valid_folder() -> Path:
    """The folder of a tiny model, made once in a process; it is not to be written to."""
    folder = Path(tempfile.mkdtemp(prefix="glow_fuzz_model_"))
    model = jax.jit(lambda: Glow(RUN.model, rngs=nnx.Rngs(0)))()
    content = in_a_file(model)
    config = values_for(
        RUN,
        weights="averaged",
        step=7,
        content=content,
        license="cc0-1.0",
        images=RunData(10, 2, (4, 4, 1), 2, ("cat", "dog"), "f" * 64),
        results={"bits_per_dim": 3.5},
    )
    (folder / WEIGHTS).write_bytes(content)
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "step": 7}\n')
    return folder


def make(seed: int, folder: Path) -> Case:
    """The case of a seed."""
    rng, given = rng_of("model_folders", seed), new_folder(folder)
    source = Path(shutil.copytree(valid_folder(), given / "model"))
    outside = folder / OUTSIDE / PRECIOUS
    damage = [_damage(source, outside, rng) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    step = rng.choice([None, None, None, "best", 7, 6, -1, 10**30])
    output = given / "run"

    def use() -> None:
        run = load_run(source, step)  # pyright: ignore[reportArgumentType]
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(run.model))]
        check_finite("the model", arrays)
        assert isinstance(run, PublishedRun)
        if rng.random() < 0.1:
            save_run(run, output)

    return Case(lambda: quietly(use), [*damage, f"step {step}"], output)


def _damage(folder: Path, outside: Path, rng: random.Random) -> str:
    """Damage one of the files; say how."""
    how = rng.choice(["any", "config", "config", "header", "header", "weights"])
    try:
        if how == "any":
            names = [CONFIG, WEIGHTS, "metrics.jsonl"]
            return damage_file(folder / rng.choice(names), outside, rng)
        if not all((folder / name).is_file() for name in (CONFIG, WEIGHTS)):
            return "nothing"  # one is a pipe or a device by now, and opening it would wait
        if how == "config":
            content, said = damage_json(json.loads((folder / CONFIG).read_bytes()), rng)
            (folder / CONFIG).write_bytes(content)
            return f"{said} {CONFIG}"
        content = (folder / WEIGHTS).read_bytes()
        damage = _other_header if how == "header" else damage_bytes
        content, said = damage(content, rng)
        (folder / WEIGHTS).write_bytes(content)
        _digest_anew(folder, content)
        return f"{said} {WEIGHTS}"
    # There is nothing left to damage, or no longer what it was.
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return "nothing"


def _other_header(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Weights whose header claims something else."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if rng.random() < 0.5:
        entry = header[rng.choice(list(header))]
        entry[rng.choice(["dtype", "shape", "data_offsets"])] = rng.choice(
            [odd(rng), "F64", "I32", "BF16", [2**62, 2], [0, 2**63], [4, 0], [-1, 4]]
        )
        text = json.dumps(header).encode()
    else:
        text, _ = damage_json(header, rng)
    length = rng.choice([len(text)] * 6 + [0, 2**40, 2**64 - 1, len(text) + 1])
    return length.to_bytes(8, "little") + text + content[8 + length :], "header"


def _digest_anew(folder: Path, content: bytes) -> None:
    values = json.loads((folder / CONFIG).read_bytes())
    values["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / CONFIG).write_text(json.dumps(values))
