"""Histograms of scores, and the picture of a table, as PNG files."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from glow_jax.files import write_whole
from glow_jax.ood.results import Comparison
from glow_jax.ood.table import pair_titles, rows_of

_BINS = 100
# Beyond these quantiles of either set, bars are too low to see.
_SHOWN = (0.0005, 0.9995)


def save_histogram(
    path: Path, inside: np.ndarray, outside: np.ndarray, *, names: tuple[str, str], label: str
) -> None:
    """Draw the scores of two sets of images, each normalised to a density.

    This is figure 1 of Nalisnick et al. 2019 (arXiv 1810.09136), which shows the log-likelihood in
    bits/dim. Scores that are not finite are left out.

    Args:
        path: the PNG file.
        inside: scores of in-distribution images, (N,).
        outside: scores of out-of-distribution images, (M,).
        names: the names of the two sets.
        label: the label of the axis.
    """
    sets = [scores[np.isfinite(scores)] for scores in (inside, outside)]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    ends = [np.quantile(scores, _SHOWN) for scores in sets if len(scores)]
    if ends:
        edges = np.histogram_bin_edges(np.ravel(ends), _BINS)
        for scores, name in zip(sets, names, strict=True):
            if len(scores):
                heights = np.full(len(scores), 1 / len(scores) / (edges[1] - edges[0]))
                axes.hist(scores, list(edges), weights=heights, alpha=0.6, label=name)
        figure.legend(loc="outside upper center", ncols=len(sets))
    axes.set(xlabel=label, ylabel="density")
    _save(figure, path)


def save_pairs(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Draw the AUROC of every score on every pair: blue is right, red is wrong, white guesses.

    Args:
        path: the PNG file.
        comparisons: the pairs, in the order of the columns.
    """
    rows, titles = rows_of(comparisons), pair_titles(comparisons)
    values = np.array(
        [[np.nan if one is None else one.value for one in row.aurocs] for row in rows]
    )
    size = (2.6 + 0.62 * len(titles), 1.9 + 0.27 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(titles)), titles, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if 0.2 < value < 0.8 else "white"
            axes.text(
                column, row, f"{value:.3f}", ha="center", va="center", fontsize=7, color=colour
            )
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
