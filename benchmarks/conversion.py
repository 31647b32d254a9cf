"""Conversions of the published size: how exact, how long, and how much memory.

    python benchmarks/conversion.py        (needs the extra `test`)

Writes random checkpoints of the published model to a folder for temporary files, as Glow-PyTorch
and openai/glow leave theirs, and converts each by the command that users call. Keeps the
differences that the command prints; and of its process the seconds, also those of the CPU, which
other work on the machine changes less, and the most memory. Prints tables in Markdown; writes them
as JSON.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from architectures import MODELS, ModelName
from figures import FOLDER, markdown, write
from workers import Worker

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config import Config, ModelConfig
from glow_jax.errors import GlowError

REPOSITORY = Path(__file__).resolve().parents[1]
GB = 1e9
# A line of a proof: what is compared, the difference, the bound.
FIGURE = re.compile(r"^  (\S.*?) +(\S+) <= (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Arguments:
    """Convert random checkpoints."""

    model: Annotated[ModelName, tyro.conf.Positional] = "published"
    output: Path = FOLDER / "conversion.json"


class Side:
    """Writes checkpoints, in a process of its own: a process that converts inherits no memory."""

    def __init__(self, config: ModelConfig, folder: str):
        """Checkpoints of an architecture, written to a folder."""
        sys.path.append(str(REPOSITORY))  # for what writes TensorFlow's files
        self.config = config
        self.folder = Path(folder)

    def glow_pytorch(self) -> list[str]:
        """A bare state dict, and one beside the state of Adamax."""
        import parity
        import torch

        from glow_jax.bridge import mapping

        values = mapping.from_glow(parity.Side(Config(model=self.config)).model)
        model = mapping.build_reference(self.config, values)
        optimizer = torch.optim.Adamax(model.parameters(), lr=5e-4)
        for parameter in model.parameters():
            parameter.grad = 1e-3 * torch.randn_like(parameter)
        optimizer.step()
        bare, whole = self.folder / "bare.pt", self.folder / "whole.pt"
        torch.save(model.state_dict(), bare)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, whole)
        return [str(bare), str(whole)]

    def openai(self) -> str:
        """Weights, their averages and the state of Adamax, with line 1 of train.txt."""
        from glow_jax.bridge.layouts.openai import places
        from tests import openai_models
        from tests.openai_files import write_bundle

        config = replace(
            self.config, LU_decomposed=False, padding="edge_bias", actnorm_logs_factor=3.0
        )
        rng = np.random.default_rng(0)
        weights = {name: _random(name, place.shape, rng) for name, place in places(config).items()}
        averages = {f"{name}/ExponentialMovingAverage": value for name, value in weights.items()}
        folder = self.folder / "openai"
        folder.mkdir()
        arrays = {**weights, **averages, **openai_models.slots(config)}
        write_bundle(folder / "model_best_loss.ckpt", arrays)
        (folder / "train.txt").write_text(json.dumps(openai_models.settings(config)) + "\n")
        return str(folder)


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A variable of openai/glow: small, a kernel by the size of its sums, a 1x1 map a rotation."""
    if name.endswith("invconv/W"):
        return np.linalg.qr(rng.standard_normal(shape))[0].astype(np.float32)
    terms = math.prod(shape[:-1]) if name.endswith("/W") else 100
    return (rng.standard_normal(shape) / (10 * math.sqrt(terms))).astype(np.float32)


def convert(script: str, checkpoint: str, output: Path) -> dict[str, Any]:
    """What a conversion prints of its proof, its seconds, and the most memory that it took.

    Raises:
        GlowError: the command failed, or proved nothing.
    """
    command = [sys.executable, str(REPOSITORY / script), checkpoint, "--output", str(output)]
    printed = output.with_suffix(".txt")
    started = time.perf_counter()
    with printed.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    found = FIGURE.findall(printed.read_text())
    if process.returncode or not found:
        raise GlowError(f"{script} did not convert {checkpoint}: {printed.read_text()}")
    proof: dict[str, tuple[float, float]] = {}
    for name, difference, bound in found:  # the same of an average follows: keep the nearer one
        pair = float(difference), float(bound)
        proof[name] = max(proof.get(name, (0.0, 1.0)), pair, key=lambda pair: pair[0] / pair[1])
    path = Path(checkpoint)
    files = path.iterdir() if path.is_dir() else [path]
    return {
        "bytes": sum(file.stat().st_size for file in files),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        # Linux counts in units of 1024 bytes, macOS in bytes.
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "proof": [
            {"name": name, "difference": difference, "bound": bound}
            for name, (difference, bound) in proof.items()
        ],
    }


def conversions(config: ModelConfig, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every checkpoint's name, and what its conversion took and found."""
    with Worker("conversion", config, str(folder)) as side:
        bare, whole = side.ask("glow_pytorch")
        theirs = side.ask("openai")
    names = ("Glow-PyTorch, weights alone", "Glow-PyTorch, with the optimizer's state")
    for name, file in zip(names, (bare, whole), strict=True):
        yield name, convert("convert/from_torch.py", file, folder / Path(file).stem)
    name = "openai/glow, with averages and the optimizer's state"
    yield name, convert("convert/from_openai.py", theirs, folder / "from_openai")


def cost_table(figures: Mapping[str, Any]) -> str:
    """What each conversion took, in Markdown."""
    rows = [
        (
            *(name, f"{row['bytes'] / 1e6:.0f}", f"{row['cpu_seconds']:.0f}"),
            f"{row['peak_bytes'] / GB:.1f}",
        )
        for name, row in figures["rows"].items()
    ]
    return markdown(["checkpoint", "MB", "CPU seconds", "most memory, GB"], rows)


def proof_table(figures: Mapping[str, Any]) -> str:
    """The largest differences of each conversion, in Markdown."""
    rows = [
        (name.partition(",")[0], part["name"], f"{part['difference']:.1e}", f"{part['bound']:.1e}")
        for name, row in figures["rows"].items()
        if "alone" not in name
        for part in row["proof"]
    ]
    return markdown(["checkpoint", "", "largest difference", "bound"], rows)


@one_line_errors
def main() -> None:
    """Write the checkpoints, convert, print, write."""
    arguments = parse(Arguments)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, row in conversions(MODELS[arguments.model], Path(folder)):
            rows[name] = row
            write(arguments.output, model=arguments.model, rows=rows)
            print(f"{name}: converted", flush=True)
    print(f"\n{cost_table({'rows': rows})}\n{proof_table({'rows': rows})}")


if __name__ == "__main__":
    main()
