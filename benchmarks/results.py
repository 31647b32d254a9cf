"""The README's table: a few results of every kind, each with the page that has the rest."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from figures import FOLDER, REPOSITORY, markdown, read
from memory import MIB
from speed_rounds import Row

OOD = "ood.json"
"""What `python eval.py models/fashion_mnist --ood ...` writes, once it is kept in `FOLDER`."""

RIVALS = {
    "torch": "this project's reference in PyTorch",
    "torch_layers": "PyTorch layer by layer",
    "torch_compiled": "`torch.compile`",
}
"""PyTorch's sides of the benchmark of speed."""


def table() -> str:
    """The table in Markdown."""
    makers: tuple[Callable[[], list[list[str]]], ...] = (
        *(_likelihoods, _parity, _speed, _memory),
        *([_ood] if (REPOSITORY / FOLDER / OOD).exists() else []),
    )
    rows = [row for make in makers for row in make()]
    return f"{markdown(['', 'glow-jax', 'beside it', 'more'], rows)}\n{_how_fast()}"


def _page(name: str) -> str:
    return f"[{name.replace('_', ' ')}](docs/{name}.md)"


def _likelihoods() -> list[list[str]]:
    digits, garments = read("baseline_digits.json"), read("baseline_fashion_mnist.json")
    shipped = read("models/fashion_mnist/config.json")["results"]
    beside = "by a Gaussian with full covariance"
    return [
        [
            f"digits, bits/dim at {digits['n_bits']} bits",
            f"**{digits['glow']:.3f}**",
            f"{digits['gaussian']:.3f} {beside}",
            _page("getting_started"),
        ],
        [
            "Fashion-MNIST, bits/dim",
            f"**{shipped['bits_per_dim']:.3f}**",
            f"{garments['gaussian']:.3f} {beside}",
            _page("models"),
        ],
    ]


def _parity() -> list[list[str]]:
    found = read("parity.json")
    rows = {
        "Glow-PyTorch": found["JAX and the public implementations"]["evaluation: bits/dim"],
        "openai/glow": found["JAX and openai/glow's TensorFlow, float32"]["bits_x"],
    }
    differences = " and ".join(f"**{difference:.1e}**" for difference, _ in rows.values())
    bounds = " and ".join(f"{bound:.0e}" for _, bound in rows.values())
    what = f"bits/dim, largest difference from {' and '.join(rows)}"
    return [[what, differences, f"{bounds} allowed", _page("parity")]]


def _speed() -> list[list[str]]:
    found = read("speed.json")
    rows = [Row(**row) for row in found["rows"]]
    chosen = [
        row
        for task in ("training", "likelihood")
        for row in rows
        if (row.task, row.model, row.batch_size) == (task, "published", 16)
    ]
    return [_speed_row(row, found["arguments"]["memory"]) for row in chosen]


def _speed_row(row: Row, memory: str) -> list[str]:
    """A task beside the fastest that PyTorch does it."""
    medians = {side: float(np.median(rates)) for side, rates in row.rates.items()}
    ours = medians.pop("jax")
    fastest = max(medians, key=lambda side: medians[side])
    flag = f" with `--memory {memory}`" if row.task == "training" else ""  # no other has a gradient
    return [
        f"{row.task} of the published size at batch {row.batch_size}, images/s on two CPU cores",
        f"**{ours:.1f}**{flag}",
        f"{medians[fastest]:.1f} by {RIVALS[fastest]}",
        _page("speed"),
    ]


def _how_fast() -> str:
    """How the speeds of the table were measured."""
    pages = ", with huge pages for both" if read("speed.json")["arguments"]["huge_pages"] else ""
    return f"(Images/s are medians{pages}, beside the fastest of PyTorch's {len(RIVALS)} ways.)\n"


def _memory() -> list[list[str]]:
    found = read("memory.json")
    deepest: Mapping[str, Any] = found["rows"][-1]
    kept = {mode: f"{deepest[mode][0] / MIB:,.0f}" for mode in ("reversible", "fast")}
    return [
        [
            f"temporary memory of a gradient through {deepest['K']} steps in each level at batch "
            f"{found['batch_size']}, MiB",
            f"**{kept['reversible']}** with `--memory reversible`",
            f"{kept['fast']} with `--memory fast`",
            _page("speed"),
        ]
    ]


def _ood() -> list[list[str]]:
    found = read(OOD)
    scores = {name: figures["auroc"]["value"] for name, figures in found["scores"].items()}
    best = "complexity_png"
    return [
        [
            "digits told from garments, AUROC of Serra et al.'s S with PNG",
            f"**{scores[best]:.3f}**",
            f"{scores['likelihood']:.3f} of the likelihood alone",
            _page("out_of_distribution"),
        ]
    ]
