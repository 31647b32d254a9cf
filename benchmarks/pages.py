"""Fills the tables of the README and of the documentation; `docs/tables.py` is its command.

A table stands in a page between `<!-- table: NAME -->` and `<!-- end -->`; `TABLES` says how it is
made of the files that commands wrote. No table of numbers is typed by hand.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import ablation
import ahead_of_time
import baseline
import conversion
import data
import faults
import frames
import inverse
import memory
import ood_pairs
import precision
import results
import scaling
import settings
import shipped
import speed
import startup
from figures import FOLDER, REPOSITORY, markdown, read, with_interval

PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
OURS = "JAX and our PyTorch reference, "


def differences(title: str, *kept: str) -> str:
    """The largest differences that tests of parity kept under some titles."""
    found = read("parity.json")
    rows = [
        (name, f"{difference:.1e}", f"{bound:.1e}")
        for part in kept
        for name, (difference, bound) in found[part].items()
    ]
    return markdown([title, "largest difference", "bound"], rows)


def ood_scores(found: Mapping) -> str:
    """The figures of every score on one pair of data sets, with their intervals."""
    columns = {"AUROC": "auroc", "AUPR-in": "aupr", "FPR-in": "fpr95"}
    rows = (
        [score["title"], *(with_interval(score[key]) for key in columns.values())]
        for score in found["scores"].values()
    )
    return markdown(["score", *columns], rows)


def _of(make: Callable[[Mapping], str], name: str) -> Callable[[], str]:
    return lambda: make(read(name))


def printed(name: str) -> str:
    """The table of a page that `accelerator.py` wrote, a part of it alone."""
    lines = (FOLDER / name).read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("|")) + "\n"


PUBLIC, THEIRS = "JAX and the public implementations", "JAX and openai/glow's TensorFlow, float32"
TABLES: Mapping[str, Callable[[], str]] = {
    "results": results.table,
    "digits": _of(baseline.table, "baseline_digits.json"),
    "shipped_epochs": shipped.epochs,
    "models": shipped.models,
    "labels": shipped.labels,
    "datasets": settings.datasets,
    "presets": settings.presets,
    "data_fashion_mnist": _of(data.table, "data_fashion_mnist.json"),
    "data_jpegs": _of(data.table, "data_jpegs.json"),
    "draws": _of(inverse.draws_table, "inverse.json"),
    "reconstructions": _of(inverse.reconstructions_table, "inverse.json"),
    "parity_reference": partial(
        *(differences, f"{OURS.rstrip(', ')}", f"{OURS}float64", f"{OURS}float32"),
        f"{OURS}training",
    ),
    "parity_public": partial(differences, PUBLIC, PUBLIC),
    "parity_openai": partial(differences, THEIRS, THEIRS),
    "conversion_cost": _of(conversion.cost_table, "conversion.json"),
    "conversion_proof": _of(conversion.proof_table, "conversion.json"),
    "precision": _of(precision.table, "precision.json"),
    "faults": _of(faults.table, "faults.json"),
    "frames": _of(frames.table, "frames.json"),
    "scaling": _of(scaling.table, "scaling.json"),
    "speed": _of(speed.table, "speed.json"),
    "memory": _of(memory.table, "memory.json"),
    "largest_batch": _of(memory.largest_table, "largest_batch.json"),
    "startup": _of(startup.training_table, "startup.json"),
    "startup_programs": _of(startup.programs_table, "startup.json"),
    "ood": _of(ood_scores, results.OOD),
    "ood_pairs": _of(ood_pairs.table, "ood_pairs.json"),
    "ablation": _of(ablation.table, "ablation.json"),
    "ablation_dequantization": _of(ablation.table, "ablation_dequantization.json"),
    "h200_speed": partial(printed, "h200_speed.md"),
    "h200_memory": partial(printed, "h200_memory.md"),
    "ahead_of_time": _of(ahead_of_time.table, "ahead_of_time.json"),
}
"""What makes each table, by its name in the pages."""


def pages() -> Iterator[Path]:
    """The pages that may have tables."""
    yield REPOSITORY / "README.md"
    yield from sorted((REPOSITORY / "docs").glob("*.md"))


def filled(text: str) -> str:
    """A page's text with every table as its files give it."""
    return PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def old() -> list[Path]:
    """The pages with tables that are not what their files give."""
    return [page for page in pages() if filled(page.read_text()) != page.read_text()]


def main() -> None:
    """Write the pages, or compare them with `--check`."""
    found = old()
    if "--check" in sys.argv[1:]:
        for page in found:
            print(f"{page.relative_to(REPOSITORY)} has an old table: run python docs/tables.py")
        sys.exit(bool(found))
    for page in found:
        page.write_text(filled(page.read_text()))
