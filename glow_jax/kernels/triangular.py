"""Inverses of triangular matrices, by products.

A library's solver takes far more time than its few operations. On a CPU, OpenBLAS wakes threads of
its own, which keep a core busy for milliseconds after every call: XLA's threads wait for it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.kernels.products import PRECISION

# Larger matrices are inverted by halves: doubling computes whole products for one block of each.
_LARGEST = 32


def inverse_of_lower(matrix: jax.Array) -> jax.Array:
    """The inverses of lower triangular matrices: (..., C, C) -> (..., C, C).

    [[A, 0], [B, D]]^-1 = [[A^-1, 0], [-D^-1 B A^-1, D^-1]]

    In norm the error is within a few times that of substitution. What stands above the diagonal is
    not read.
    """
    channels = matrix.shape[-1]
    if channels <= _LARGEST:
        return _by_doubling(matrix)
    half = channels // 2
    first = inverse_of_lower(matrix[..., :half, :half])
    second = inverse_of_lower(matrix[..., half:, half:])
    corner = -_product(_product(second, matrix[..., half:, :half]), first)
    return jnp.block([[first, jnp.zeros_like(corner.mT)], [corner, second]])


def _by_doubling(matrix: jax.Array) -> jax.Array:
    """Invert the blocks of size 1 on the diagonal, then those of size 2, 4, and so on."""
    index = np.arange(matrix.shape[-1])
    diagonal = np.eye(len(index), dtype=bool)
    # X holds the inverses of the blocks of one size, and zero elsewhere; B the entries that join
    # two of them to a block of twice the size. The inverses of those are X - X B X.
    inverses = jnp.where(diagonal, 1 / jnp.where(diagonal, matrix, 1), 0)
    for size in 2 ** np.arange((len(index) - 1).bit_length()):
        blocks = index // size
        joins = (blocks[:, None] == blocks + 1) & (blocks % 2 == 0)
        below = jnp.where(joins, matrix, 0)
        inverses = inverses - _product(_product(inverses, below), inverses)
    return inverses


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, precision=PRECISION)
