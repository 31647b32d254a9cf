"""Grids of images in matplotlib figures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from glow_jax.evaluation.samples import grid


def draw_grid(
    axes: Axes, images: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str = ""
) -> None:
    """Draw a grid of images in a figure, with a name at each row and column.

    Args:
        axes: the axes to draw in.
        images: uint8, (rows * columns, H, W, C), row by row.
        rows: the names of the rows; an empty string shows no name.
        columns: the names of the columns.
        title: the title of the grid.
    """
    height, width = images.shape[1] + 1, images.shape[2] + 1
    axes.imshow(grid(images, columns=len(columns)), interpolation="nearest")
    axes.set_xticks(np.arange(len(columns)) * width + width / 2, columns)
    axes.set_yticks(np.arange(len(rows)) * height + height / 2, rows)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
