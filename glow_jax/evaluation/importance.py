"""Importance-weighted bounds: tighter than the average over draws of the noise."""

import numpy as np

from glow_jax.evaluation.likelihood import BitsPerDim, Likelihood


class ImportanceBounds:
    """Collects the draws of an evaluation into bounds of 1, 10, 100, ... draws each.

    With w_j = p(x_j) / q(u_j) of the j-th draw of the noise, the bits of a discrete image are at
    most, in expectation,

        E[-log2(mean of w_1 ... w_k)]

    which falls as k grows, to the bits of the discrete model (Burda et al. 2016, arXiv 1509.00519;
    for dequantisation Hoogeboom et al. 2020, arXiv 2001.11235). All draws are used for each k: they
    are cut into groups of k, whose bounds are averaged. A last group that is not full is left out.
    """

    def __init__(self, draws: int, dimensions: int):
        """Expect so many draws.

        Args:
            draws: the number of draws; it is the largest k, after the powers of 10 below it.
            dimensions: D, the number of values in an image.
        """
        powers = (10**power for power in range(len(str(draws))))
        self._sizes = sorted({*powers, draws})
        self._dimensions = dimensions
        self._seen = 0
        self._group = {size: np.array(-np.inf) for size in self._sizes}
        self._total = {size: np.array(0.0) for size in self._sizes}

    def add(self, draw: Likelihood) -> None:
        """Add the bits/dim of all images for one draw of the noise."""
        self._seen += 1
        log2_weights = -draw.bits_per_dim.astype(np.float64) * self._dimensions
        for size in self._sizes:
            self._group[size] = np.logaddexp2(self._group[size], log2_weights)
            if self._seen % size == 0:
                bits = np.log2(size) - self._group[size]
                self._total[size] = self._total[size] + bits / self._dimensions
                self._group[size] = np.array(-np.inf)

    def found(self) -> dict[int, BitsPerDim]:
        """The bounds, by the number of draws in each."""
        groups = {size: self._seen // size for size in self._sizes}
        return {size: BitsPerDim(self._total[size] / count) for size, count in groups.items()}
