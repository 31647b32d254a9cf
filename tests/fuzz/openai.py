"""Checkpoints and frozen graphs of openai/glow, for their converter."""

import functools
import json
import random
import tempfile
from pathlib import Path

from glow_jax.bridge.from_openai import convert
from glow_jax.cli.converting import memory_in_bytes
from glow_jax.cli.from_openai import main as from_openai_main

from .bundles import to_bundle
from .case import OUTSIDE, PRECIOUS, Case, new_folder, quietly, rng_of
from .checkpoints import check_conversion, words_of
from .commands import run_command
from .damage import damage_bytes, damage_file, damage_json
from .graphs import to_graph
from .sample import Sample
from .tars import to_tar
from .variables import Arrays, Parts, damage_variables, some_model

# As in `checkpoints`.
_WRITTEN = 0.03
_PROVED = 0.001

_PREFIXES = ["model_best_loss.ckpt"] * 6 + ["a.ckpt", "x", "..", ".", "", "ä\x1b[2J", "-rf"]
_ODD: dict[str, list[object]] = {
    "image_size": [0, -4, 2, 5, 8, 16, 2**14, 2**40, -(2**70)],
    "n_bits": [0, -1, 1, 5, 8, 9, 2**70],
    "y_weight": [0.0, -0.0, -1.0, 1e-320, 1e6, 1e308, float("nan"), float("inf")],
    "memory_limit": [1e-9, 1e-6, 1e-5, 5e-5, 2e-4, 0.0, -1.0, 1e5, 1e300, float("nan")],
}


def make(seed: int, folder: Path) -> Case:
    """The case of a seed."""
    _convert_one()
    rng, given = rng_of("openai", seed), new_folder(folder)
    sample = _sample(rng)
    for name, content in sample.files.items():
        path = given / name
        path.write_bytes(content)
        if rng.random() < 0.02:
            sample.damage.append(damage_file(path, folder / OUTSIDE / PRECIOUS, rng))
    if rng.random() < 0.05:
        sample.damage.append(_move(given, folder / OUTSIDE, rng))
    if rng.random() < 0.07:
        name = rng.choice(list(_ODD))
        sample.options[name] = rng.choice(_ODD[name])
        sample.damage.append(f"{name} {sample.options[name]}")
    path, output = given / sample.name, folder / "converted"
    if rng.random() < _WRITTEN:
        if rng.random() < 0.1:
            sample.options[rng.choice(list(_ODD))] = rng.choice(["", "²", "1e400", "x", "\x1b[31m"])
        is_proved = rng.random() < _PROVED / _WRITTEN
        words = words_of(path, output, sample.options, is_proved=is_proved)
        sample.damage.append(" ".join(words[1:]))
        return Case(lambda: run_command(from_openai_main, words), sample.damage, output)
    return Case(lambda: quietly(lambda: _convert(path, sample.options)), sample.damage, output)


@functools.cache
def _convert_one() -> None:
    """Convert a whole checkpoint first: PyTorch then imports what makes folders of its own."""
    parts = some_model(random.Random(0), is_graph=False)
    whole = next(
        files
        for files, damage in (to_bundle("a", parts.weights, random.Random(n)) for n in range(100))
        if not damage
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, content in whole.items():
            Path(folder, name).write_bytes(content)
        Path(folder, "train.txt").write_text(json.dumps(parts.settings()))
        _convert(Path(folder), {})


def _convert(path: Path, options: dict[str, object]) -> None:
    flags = {name: value for name, value in options.items() if name != "memory_limit"}
    memory = memory_in_bytes(options.get("memory_limit"))  # pyright: ignore[reportArgumentType]
    check_conversion(convert(path, **flags, memory=memory))  # pyright: ignore[reportArgumentType]


def _sample(rng: random.Random) -> Sample:
    """The files of a checkpoint or of a graph, and which of them is given."""
    is_graph = rng.random() < 0.2
    parts = some_model(rng, is_graph=is_graph)
    arrays = dict(parts.weights)
    if not is_graph or rng.random() < 0.02:
        arrays |= _further(parts, rng)
    damage = [damage_variables(arrays, rng) for _ in range(rng.choice([0, 0, 0, 0, 1, 1, 2]))]
    prefix = rng.choice(_PREFIXES)
    if is_graph:
        files, name = {}, rng.choice(["graph.pb", "graph.pb", "graph_optimized.pb", "ä.pb"])
        files[name], how = to_graph(arrays, rng)
    else:
        files, how = to_bundle(prefix, arrays, rng)
        endings = ["", ".index", ".index", ".data-00000-of-00001", ".data-00007-of-00003"]
        name = rng.choice([".", ".", ".", *(prefix + ending for ending in endings)])
    sample = Sample(files, name, {}, damage + how)
    _tell_settings(sample, parts, rng)
    if rng.random() < 0.1:  # it is a path of the training machine, and never followed
        target = rng.choice(["/etc/passwd", "../outside/precious.json", "/mnt/x.ckpt", "a\0b"])
        files["checkpoint"] = f'model_checkpoint_path: "{target}"\n'.encode()
    if rng.random() < 0.02:
        files["b.ckpt.index"] = rng.choice([b"", *files.values()])
    if files and not is_graph and rng.random() < 0.25:
        packed = {entry or "x": content for entry, content in files.items()}
        sample.name, content, how = to_tar(packed, rng)
        sample.files, sample.damage = {sample.name: content}, sample.damage + how
    return sample


def _further(parts: Parts, rng: random.Random) -> Arrays:
    """What stands beside the weights: averages, and the optimizer's state."""
    further: Arrays = {}
    if rng.random() < 0.35:
        further |= parts.averages
    if rng.random() < 0.3:
        further |= parts.slots
        if rng.random() < 0.3:
            step = rng.choice([1, 1.5, 0, -1, 1e9, 2**24, 1e30, float("nan"), float("inf")])
            further["Variable"] = further["Variable"] * 0 + further["Variable"].dtype.type(step)
    return further


def _tell_settings(sample: Sample, parts: Parts, rng: random.Random) -> None:
    """Tell what no variable tells by files of settings, by options, or not at all."""
    settings = parts.settings()
    if rng.random() < 0.3:
        sample.options |= {"image_size": settings["image_size"], "n_bits": settings["n_bits_x"]}
        if parts.model.y_condition and parts.model.classifier:
            sample.options["y_weight"] = settings["weight_y"]
        if rng.random() < 0.8:
            return
    name = rng.choice(["train.txt"] * 4 + ["test.txt", "hps.json"])
    content = json.dumps(settings).encode()
    if rng.random() < 0.3:
        content, how = damage_json(settings, rng)
        sample.damage.append(f"{how} {name}")
    if not name.endswith(".json"):
        content += rng.choice([b"", b'\n{"epoch": 1}\n', b"\n" + b"\xff" * 100, b"\r\n"])
    if rng.random() < 0.03:
        content = rng.choice([b" " * 2**21, b"\n" + content, content.replace(b",", b",\n"), b""])
        sample.damage.append(f"another first line of {name}")
    sample.files[name] = content
    if rng.random() < 0.05:
        sample.files["test.txt"] = damage_bytes(content, rng)[0]


def _move(given: Path, outside: Path, rng: random.Random) -> str:
    """Put a file elsewhere, and a link to it in its place."""
    files = sorted(path for path in given.iterdir() if path.is_file() and not path.is_symlink())
    if not files:
        return "nothing"
    path = rng.choice(files)
    kind = rng.choice(["link out", "link inside", "link to a folder"])
    match kind:
        case "link out":
            path.rename(outside / "moved")
            path.symlink_to(rng.choice([outside / "moved", Path("..", outside.name, "moved")]))
        case "link inside":
            path.rename(given / "moved")
            path.symlink_to("moved")
        case "link to a folder":
            path.unlink()
            path.symlink_to(rng.choice([given, outside]))
    return f"{kind} {path.name}"
