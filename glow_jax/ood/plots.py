"""Histograms of scores, as PNG files."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from glow_jax.files import write_whole

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
        axes.legend(loc="upper right")  # "best" takes seconds for many images
    axes.set(xlabel=label, ylabel="density")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
