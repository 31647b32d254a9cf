"""One table of several comparisons: rows are scores, columns are pairs of data sets."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from glow_jax.ood.metrics import Interval
from glow_jax.ood.report import Rows
from glow_jax.ood.results import Comparison


@dataclass(frozen=True)
class Row:
    """A score's AUROC on every pair.

    Attributes:
        name: of the score.
        title: of the score.
        paper: where the score comes from.
        aurocs: one for each pair, in order; None where the score was not computed.
    """

    name: str
    title: str
    paper: str
    aurocs: tuple[Interval | None, ...]

    @property
    def worst(self) -> int:
        """The number of the pair with the lowest AUROC."""
        values = [2.0 if auroc is None else auroc.value for auroc in self.aurocs]
        return values.index(min(values))


def rows_of(comparisons: Sequence[Comparison]) -> list[Row]:
    """A row for each score of any comparison, in the order in which they appear."""
    known = {
        name: figures for comparison in comparisons for name, figures in comparison.scores.items()
    }
    return [
        Row(
            name,
            figures.title,
            figures.paper,
            tuple(
                comparison.scores[name].detection.auroc if name in comparison.scores else None
                for comparison in comparisons
            ),
        )
        for name, figures in known.items()
    ]


def pair_titles(comparisons: Sequence[Comparison]) -> list[str]:
    """The title of each comparison's column."""
    return [f"{one.inside.dataset} / {one.outside.dataset}" for one in comparisons]


def pair_rows(comparisons: Sequence[Comparison]) -> Rows:
    """The table's cells, with 95 % intervals, and each score's worst pair."""
    titles = pair_titles(comparisons)
    table = [["AUROC, in / out", *titles, "worst"]]
    for row in rows_of(comparisons):
        cells = ["" if auroc is None else _cell(auroc) for auroc in row.aurocs]
        table.append([row.title, *cells, titles[row.worst]])
    return table


def _cell(auroc: Interval) -> str:
    return f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]"


def pairs_json(comparisons: Sequence[Comparison]) -> dict[str, object]:
    """Everything of all comparisons, and the table, as plain values."""
    titles = pair_titles(comparisons)
    return {
        "pairs": titles,
        "auroc": {
            row.name: {
                "title": row.title,
                "paper": row.paper,
                "worst": titles[row.worst],
                "pairs": [None if one is None else dataclasses.asdict(one) for one in row.aurocs],
            }
            for row in rows_of(comparisons)
        },
        "comparisons": [comparison.to_json() for comparison in comparisons],
    }
