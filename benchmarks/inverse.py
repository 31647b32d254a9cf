"""What goes wrong in the inverse direction: samples at high temperatures, and reconstructions.

    python train.py --preset digits --seed 1 --output_dir runs/digits
    python train.py --preset digits --seed 1 --flow_coupling additive --output_dir runs/additive
    python benchmarks/inverse.py runs/digits runs/additive

Prints tables in Markdown; writes them as JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from figures import FOLDER, markdown, write

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.data import Readable, load_dataset
from glow_jax.devices import Devices
from glow_jax.evaluation.likelihood import dequantized, likelihood
from glow_jax.hub import load_run
from glow_jax.model import Glow, computing
from glow_jax.runs import LoadedRun


@dataclass(frozen=True)
class Arguments:
    """Draw at several temperatures from runs of digits, and reconstruct with the first of them."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """run folders, the quick start's first"""
    temperatures: tuple[float, ...] = (0.5, 0.7, 1.0, 1.5, 2.0)
    samples: int = 2000
    output: Path = FOLDER / "inverse.json"


def drawn(model: Glow, count: int, temperature: float) -> dict[str, float]:
    """The largest finite value of samples, and the share of samples that are not finite."""
    values = np.asarray(model.sample(jax.random.key(0), count, temperature=temperature))
    finite = np.isfinite(values)
    return {
        "largest": float(np.abs(values[finite]).max()),
        "not_finite": 1 - float(finite.all(axis=(1, 2, 3)).mean()),
    }


def sampled(run: LoadedRun, test: Readable, arguments: Arguments) -> dict[str, Any]:
    """What a run draws at each temperature, and its bits/dim."""
    model = run.average_or_model
    bits = likelihood(model, test, Devices(), batch_size=len(test)).mean
    draws = [
        {"temperature": temperature, **drawn(model, arguments.samples, temperature)}
        for temperature in arguments.temperatures
    ]
    return {"bits_per_dim": bits, "draws": draws}


def reconstructed(model: Glow, test: Readable) -> list[dict[str, Any]]:
    """Errors of encode -> decode in several ways, each with the share of pixels that change."""
    indices = np.arange(len(test), dtype=np.uint32)
    x = dequantized(model, test[indices].images, indices)
    rounded = computing(model, dtype="bfloat16")

    def row(name: str, back: jax.Array) -> dict[str, Any]:
        changed = np.mean(np.asarray(model.to_pixels(back) != model.to_pixels(x)))
        error = jnp.abs(back - x)
        return {
            "name": name,
            "largest": float(error.max()),
            "mean": float(error.mean()),
            "pixels_changed": float(changed),
        }

    code, rounded_code = model.encode(x), rounded.encode(x)
    top_alone = (*(None for _ in code.latents[:-1]), code.latents[-1])
    drawn_anew = model.decode(top_alone, key=jax.random.key(0))
    return [
        row("all latents, float32", model.decode(code.latents)),
        row("networks in bfloat16 both ways", rounded.decode(rounded_code.latents)),
        row("encoded in bfloat16, decoded in float32", model.decode(rounded_code.latents)),
        row("top latent only, the rest drawn anew", drawn_anew),
    ]


def draws_table(figures: Mapping[str, Any]) -> str:
    """Samples over temperature, in Markdown."""
    runs = figures["runs"]
    columns = [
        title
        for coupling in runs
        for title in (f"{coupling}: largest finite value", "samples not finite")
    ]
    rows = []
    for draws in zip(*(run["draws"] for run in runs.values()), strict=True):
        cells = [(f"{draw['largest']:.2g}", f"{draw['not_finite']:.1%}") for draw in draws]
        rows.append([f"{draws[0]['temperature']:g}", *(cell for pair in cells for cell in pair)])
    return markdown(["temperature", *columns], rows)


def reconstructions_table(figures: Mapping[str, Any]) -> str:
    """Errors of encode -> decode, in Markdown."""
    rows = [
        (row["name"], *(f"{row[key]:.1e}" for key in ("largest", "mean")), _share(row))
        for row in figures["reconstructions"]
    ]
    return markdown(["", "largest error", "mean error", "pixels that change"], rows)


def _share(row: Mapping[str, float]) -> str:
    return f"{row['pixels_changed']:.2%}" if row["pixels_changed"] else "none"


@one_line_errors
def main() -> None:
    """Draw, reconstruct, print, write."""
    arguments = parse(Arguments)
    runs = [load_run(folder, "best") for folder in arguments.runs]
    test = load_dataset(runs[0].config.data).test
    figures = {
        "samples": arguments.samples,
        "images": len(test),
        "runs": {run.config.model.flow_coupling: sampled(run, test, arguments) for run in runs},
        "reconstructions": reconstructed(runs[0].average_or_model, test),
    }
    write(arguments.output, **figures)
    print(f"{draws_table(figures)}\n{reconstructions_table(figures)}")


if __name__ == "__main__":
    main()
