"""Fill the tables of the README and of the documentation from the files that commands wrote.

    python docs/tables.py            writes every table anew
    python docs/tables.py --check    names pages that are not what their files give; exits with 1

A table stands in a page between `<!-- table: NAME -->` and `<!-- end -->`; `TABLES` says how it is
made. No table is typed by hand.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / "docs" / "benchmarks"
SHIPPED = REPOSITORY / "models" / "fashion_mnist"
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
MIB, GIB = 2**20, 2**30


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def lines_of(path: Path) -> list[Any]:
    """A file of one JSON value a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def of_memory() -> str:
    """Temporary memory and compile time of a gradient over depth."""
    kinds = ("fast", "remat", "reversible")
    rows = []
    for row in read(BENCHMARKS / "memory.json")["rows"]:
        pairs = [(f"{row[kind][0] / MIB:.1f}", f"{row[kind][1]:.1f}") for kind in kinds]
        rows.append([row["K"], *(cell for pair in pairs for cell in pair)])
    return markdown(["K", *(name for kind in kinds for name in (f"{kind}, MiB", "s"))], rows)


def of_shipped_epochs() -> str:
    """Test bits/dim of the shipped model after each epoch."""
    rows = lines_of(SHIPPED / "metrics.jsonl")
    columns = ["epoch", *(str(row["epoch"]) for row in rows)]
    return markdown(columns, [["bits/dim", *(f"{row['test_bits_per_dim']:.3f}" for row in rows)]])


def of_ood_pairs() -> str:
    """AUROC of every score on every pair of data sets, with intervals."""
    found = read(BENCHMARKS / "ood_pairs.json")
    pairs = [pair.split(" / ") for pair in found["pairs"]]
    several = len({inside for inside, _ in pairs}) > 1
    columns = [" / ".join(pair) if several else pair[1] for pair in pairs]
    rows = []
    for row in found["auroc"].values():
        cells = (
            f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" if one else ""
            for one in row["pairs"]
        )
        rows.append([row["title"], *cells])
    return markdown(["score", *columns], rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "memory": of_memory,
    "shipped_epochs": of_shipped_epochs,
    "ood_pairs": of_ood_pairs,
}
"""What makes each table, by its name in the pages."""


def pages() -> Iterator[Path]:
    """The pages that may have tables."""
    yield REPOSITORY / "README.md"
    yield from sorted((REPOSITORY / "docs").glob("*.md"))


def filled(text: str) -> str:
    """A page's text with every table as its files give it."""
    return PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def main() -> None:
    """Write the pages, or compare them with `--check`."""
    old = [page for page in pages() if filled(page.read_text()) != page.read_text()]
    if "--check" in sys.argv[1:]:
        for page in old:
            print(f"{page.relative_to(REPOSITORY)} has an old table: run python docs/tables.py")
        sys.exit(bool(old))
    for page in old:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
