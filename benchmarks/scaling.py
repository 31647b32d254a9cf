"""How training should scale over many GPUs: arithmetic from stated assumptions, nothing measured.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --flops 20e12 --network 45e9     (of another machine)

A step takes the time of computing and that of an all-reduce of the gradient, without overlap.
Prints a table in Markdown; writes it as JSON.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from architectures import forward_flop
from figures import FOLDER, markdown

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config.presets import PRESETS
from glow_jax.files import write_json
from glow_jax.model import abstract_glow, parameter_count

# preset -> (images in a batch, GPUs)
CASES = {
    "cifar10": ((64, 8), (512, 8), (512, 64), (512, 512), (4096, 512)),
    "imagenet64": ((512, 64), (512, 512)),
    "celeba256": ((40, 40), (512, 512)),
}


@dataclass(frozen=True)
class Assumptions:
    """What the arithmetic assumes of the program and of the machine."""

    passes: float = 4.0
    """forward passes that a training step's operations are worth"""
    flops: float = 10e12
    """operations a second of a GPU"""
    node: int = 8
    """GPUs of a node"""
    nvlink: float = 230e9
    """bytes a second of an all-reduce within a node"""
    network: float = 22e9
    """bytes a second of an all-reduce between nodes"""
    hop: float = 10e-6
    """seconds of each hop between nodes"""


@dataclass(frozen=True)
class Arguments:
    """Predict how training scales."""

    assumptions: Assumptions = field(default_factory=Assumptions)
    output: Path = FOLDER / "scaling.json"


def within_a_node(size: float, gpus: int, given: Assumptions) -> float:
    """Seconds of an all-reduce of so many bytes over the GPUs of a node."""
    partners = min(gpus, given.node)
    return 2 * (partners - 1) / partners * size / given.nvlink


def between_nodes(size: float, gpus: int, given: Assumptions) -> float:
    """Seconds of an all-reduce of so many bytes over nodes."""
    nodes = max(1, gpus // given.node)
    hops = 2 * (nodes - 1)
    return hops / nodes * size / given.network + hops * given.hop


def predict(given: Assumptions) -> dict[str, Any]:
    """Every case: seconds of computing and communicating, and the share of computing."""
    rows, models = [], {}
    for name, cases in CASES.items():
        config = PRESETS[name].model
        flop, parameters = forward_flop(config), parameter_count(abstract_glow(config))
        size = 4 * parameters  # of a gradient in float32
        models[name] = {"forward_flop": flop, "parameters": parameters}
        for batch, gpus in cases:
            computing = given.passes * flop * batch / gpus / given.flops
            nvlink, network = within_a_node(size, gpus, given), between_nodes(size, gpus, given)
            times = {"computing": computing, "nvlink": nvlink, "network": network}
            efficiency = computing / sum(times.values())
            rows.append(
                {"preset": name, "batch": batch, "gpus": gpus, **times, "efficiency": efficiency}
            )
    return {"assumptions": asdict(given), "models": models, "rows": rows}


def table(figures: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    columns = ("preset", "batch", "GPUs", "images on each", "computing, ms", "NVLink, ms")
    rows = []
    for row in figures["rows"]:
        computing, nvlink, network = (1e3 * row[key] for key in ("computing", "nvlink", "network"))
        cells = (f"`{row['preset']}`", row["batch"], row["gpus"], row["batch"] // row["gpus"])
        times = (f"{computing:.{0 if computing >= 10 else 1}f}", f"{nvlink:.1f}")
        between = f"{network:.0f}" if network else ""
        rows.append((*cells, *times, between, f"{row['efficiency']:.0%}"))
    return markdown([*columns, "network, ms", "efficiency"], rows)


@one_line_errors
def main() -> None:
    """Compute, print, write."""
    arguments = parse(Arguments)
    figures = predict(arguments.assumptions)
    write_json(arguments.output, figures)
    print(table(figures))


if __name__ == "__main__":
    main()
