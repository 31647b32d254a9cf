"""Run folders, for everything that reads one."""

import functools
import json
import os
import random
import re
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from glow_jax import Glow
from glow_jax.config import Config, DataConfig, ModelConfig
from glow_jax.runs import (
    CheckpointWriter,
    Direction,
    LoadedRun,
    load_optimizer_state,
    load_run,
    read_data,
    read_directions,
    read_metrics,
    write_config,
    write_direction,
)
from glow_jax.runs.data import RunData, write_data
from glow_jax.runs.digests import DIGESTS, digests_of
from glow_jax.runs.measured import (
    columns_of_any_images,
    measured_file,
    read_columns,
    write_columns,
)
from glow_jax.runs.metrics import append_metrics, mend_metrics
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.progress import Progress, progress_of

from .case import OUTSIDE, PRECIOUS, Case, check_finite, new_folder, quietly, rng_of
from .damage import damage_bytes, damage_file, damage_json

CONFIG = Config(
    model=ModelConfig(K=1, L=1, hidden_channels=2, image_shape=(4, 4, 1), LU_decomposed=False),
    data=DataConfig(dataset="images.npz"),
)
ORIGIN = {"weights": "abc", "version": 1}
_METRICS = {"epoch": 1, "step": 5, "test_bits_per_dim": 3.5, "lr": 1e-3}


@functools.cache
def valid_run() -> Path:
    """A run of two scored steps, made once in a process; it is not to be written to."""
    folder = Path(tempfile.mkdtemp(prefix="glow_fuzz_run_")) / "run"
    model = jax.jit(lambda: Glow(CONFIG.model, rngs=nnx.Rngs(0)))()
    optimizer = make_optimizer(CONFIG.optimizer, 1)
    state = jax.jit(optimizer.init)(nnx.state(model, nnx.Param))
    write_config(folder, CONFIG)
    with CheckpointWriter(folder, keep_best=True) as writer:
        for step in (5, 7):
            writer.save(
                step,
                model,
                optimizer_state=state,
                progress=Progress(epochs=step).to_json(),
                validation_bits_per_dim=float(step),
            )
            append_metrics(folder, {**_METRICS, "step": step})
    write_data(folder, RunData(10, 2, (4, 4, 1), 2, ("cat", "dog"), "f" * 64))
    columns = {"bits": np.arange(3.0), "length": np.arange(3)}
    write_columns(measured_file(folder, "images-test", "flow"), ORIGIN, columns)
    noise = tuple(np.ones((1, *shape), np.float32) for shape in CONFIG.model.latent_shapes)
    write_direction(folder, Direction("cat - dog", {"images": 2}, noise), weights="abc")
    return folder


def copy_run(to: Path) -> Path:
    """A copy of the valid run."""
    return Path(shutil.copytree(valid_run(), to))


def make(seed: int, folder: Path) -> Case:
    """The case of a seed."""
    rng, given = rng_of("run_folders", seed), new_folder(folder)
    run = copy_run(given / "run")
    outside = folder / OUTSIDE / PRECIOUS
    damage = [damage_run(run, outside, rng) for _ in range(rng.choice([0, 1, 1, 1, 1, 2, 3]))]
    step = rng.choice([None, None, None, "best", 5, 7, 6, -1, 10**30])
    damage.append(f"step {step}")
    return Case(lambda: quietly(lambda: _use(run, step, rng)), damage)


def _use(run: Path, step: int | str | None, rng: random.Random) -> None:
    """Read everything in a run folder, as evaluation, resuming and comparison do."""
    loaded = load_run(run, step)  # pyright: ignore[reportArgumentType]
    _check(loaded)
    read_data(run)
    read_metrics(run)
    read_columns(measured_file(run, "images-test", "flow"), ORIGIN)
    columns_of_any_images(run, "flow", {"weights": "abc"}, besides="version")
    for direction in read_directions(run, loaded.config.model, weights="abc").values():
        check_finite(direction.name, list(direction.noise))
    params = nnx.state(loaded.model, nnx.Param)
    target = jax.eval_shape(make_optimizer(loaded.config.optimizer, 1).init, params)
    if rng.random() < 0.3 and loaded.has_optimizer:
        load_optimizer_state(run, target, loaded.step)
    progress_of(loaded.progress)
    mend_metrics(run)
    if rng.random() < 0.05:
        with CheckpointWriter(run, keep_best=True):
            pass


def _check(run: LoadedRun) -> None:
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(run.average_or_model))]
    check_finite("the model", arrays)


def damage_run(run: Path, outside: Path, rng: random.Random) -> str:
    """Damage something in a run folder; say what."""
    how = rng.choice(
        ["any", "any", "json", "json", "step", "digest", "digest", "swap", "extra", "metrics"]
    )
    try:
        return _HOW[how](run, outside, rng)
    # There is nothing left to damage, or no longer what it was.
    except (OSError, ValueError, RecursionError):
        return "nothing"


def _any(run: Path, outside: Path, rng: random.Random) -> str:
    return damage_file(_some_file(run, rng), outside, rng)


def _some_file(folder: Path, rng: random.Random) -> Path:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    if not files:
        raise FileNotFoundError
    return rng.choice(sorted(files, key=_place))


def _place(path: Path) -> tuple[str, int, str]:
    """What sorts files alike in all processes: Orbax draws some of their names at random."""
    drawn = re.fullmatch("[0-9a-f]{32}", path.name) is not None
    return str(path.parent if drawn else path), path.stat().st_size, path.name


def _json(run: Path, _: Path, rng: random.Random) -> str:
    """One of the JSON files with another value; at times with a digest that fits."""
    names = ["hparams.json", "hparams.json", "data.json"]
    names += [f"checkpoints/7/{name}" for name in ("origin.json", "validation.json", DIGESTS)]
    names += ["checkpoints/7/progress/metadata", "checkpoints/5/validation.json"]
    path = run / rng.choice(names)
    content, how = damage_json(json.loads(path.read_bytes()), rng)
    path.write_bytes(content)
    if rng.random() < 0.7:
        _digest_anew(path, run)
    return f"{how} {path.relative_to(run)}"


def _digest_anew(path: Path, run: Path) -> None:
    parts = path.relative_to(run).parts
    if parts[0] == "checkpoints" and path.name != DIGESTS:
        directory = run / parts[0] / parts[1]
        (directory / DIGESTS).write_text(json.dumps(digests_of(directory)))


def _digest(run: Path, _: Path, rng: random.Random) -> str:
    """A file of a step damaged by somebody who made the digests anew."""
    directory = run / "checkpoints" / rng.choice(["5", "7", "7", "7"])
    path = _some_file(directory, rng)
    if path.suffix == ".json" or path.name.startswith(("_", "metadata", ".zarray")):
        try:
            content, how = damage_json(json.loads(path.read_bytes()), rng)
        except ValueError:
            content, how = damage_bytes(path.read_bytes(), rng)
    else:
        content, how = damage_bytes(path.read_bytes(), rng)
    if rng.random() < 0.15:
        path.unlink()
        how = "removed"
    else:
        path.write_bytes(content)
    _digest_anew(path, run)
    return f"{how} and digest {path.relative_to(run)}"


def _step(run: Path, _: Path, rng: random.Random) -> str:
    """A step's folder under another name, or without a part."""
    directory = run / "checkpoints" / rng.choice(["5", "7"])
    if rng.random() < 0.3:
        part = directory / rng.choice(["model", "progress", "optimizer"])
        shutil.rmtree(part)
        _digest_anew(directory / "x", run)
        return f"removed {part.relative_to(run)}"
    name = rng.choice(
        ["²", "٣", "007", "9" * 18, "9" * 200, "-1", "1e3", "last", "6", "8", "x" * 255]
    )
    directory.rename(directory.with_name(name))
    return f"renamed {directory.name} to {name[:20]}"


def _swap(run: Path, _: Path, rng: random.Random) -> str:
    one, other = _some_file(run, rng), _some_file(run, rng)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return f"swapped {one.relative_to(run)} and {other.relative_to(run)}"


def _extra(run: Path, outside: Path, rng: random.Random) -> str:
    """Something that nobody expects, beside or instead of the rest."""
    places = [
        ".lock",
        "results.json",
        "samples",
        "tensorboard",
        "tracking.json",
        "export",
        "ood/x",
        "set_aside",
        "samples.png",
    ]
    places += ["checkpoints/7/x", "checkpoints/8", "checkpoints/7/model/x", ".hparams.json.1.part"]
    path = run / rng.choice(places)
    kind = rng.choice(["file", "folder", "link", "dangling", "loop", "pipe", "huge", "folder link"])
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "file":
            path.write_bytes(rng.randbytes(20))
        case "folder":
            path.mkdir()
        case "link" | "dangling":
            path.symlink_to(outside if kind == "link" else outside.with_name("nowhere"))
        case "folder link":
            path.symlink_to(outside.parent)
        case "loop":
            path.symlink_to(path)
        case "pipe":
            os.mkfifo(path)
        case "huge":  # with nothing in it
            with path.open("wb") as file:
                file.truncate(2**28)
    return f"{kind} {path.relative_to(run)}"


def _metrics(run: Path, _: Path, rng: random.Random) -> str:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    line, how = damage_json(_METRICS, rng)
    lines.insert(rng.randrange(len(lines) + 1), line)
    path.write_bytes(rng.choice([b"\n", b"\n", b"", b"\r\n"]).join(lines))
    if rng.random() < 0.3:
        path.write_bytes(damage_bytes(path.read_bytes(), rng)[0])
    return f"metrics {how}"


_HOW = {
    **{"any": _any, "json": _json, "digest": _digest, "step": _step},
    **{"swap": _swap, "extra": _extra, "metrics": _metrics},
}
