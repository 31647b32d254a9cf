"""Inverses of triangular matrices, by products.

A library's solver takes far more time than its few operations. On a CPU, OpenBLAS wakes threads of
its own, which keep a core busy for milliseconds after every call: XLA's threads wait for it. On a
GPU it is a call for each matrix.
"""

import jax
import jax.numpy as jnp

from glow_jax.kernels.products import PRECISION


def inverse_of_lower(matrix: jax.Array) -> jax.Array:
    """The inverses of lower triangular matrices: (..., C, C) -> (..., C, C).

    The blocks of size 1 on the diagonal are inverted, then those of size 2, 4, and so on:

    [[A, 0], [B, D]]^-1 = [[A^-1, 0], [-D^-1 B A^-1, D^-1]]

    The error is of the order of substitution's (Higham 2002, Accuracy and Stability of Numerical
    Algorithms, section 14.2). What stands above the diagonal must be zero.
    """
    *stacked, channels, _ = matrix.shape
    total = 1 << (channels - 1).bit_length()
    index = jnp.arange(total)
    inside = jnp.maximum(index[:, None], index) < channels
    extended = jnp.pad(matrix, [(0, 0)] * len(stacked) + [(0, total - channels)] * 2)
    extended = jnp.where(inside, extended, jnp.eye(total, dtype=matrix.dtype))
    inverses = 1 / jnp.einsum("...ii->...i", extended)[..., None, None]  # (..., total, 1, 1)
    size = 1
    while size < total:
        pairs = total // (2 * size)
        blocks = extended.reshape(*stacked, pairs, 2, size, pairs, 2, size)
        below = jnp.einsum("...kikj->...kij", blocks[..., :, 1, :, :, 0, :])
        first, second = inverses[..., 0::2, :, :], inverses[..., 1::2, :, :]
        corner = -_product(_product(second, below), first)
        upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        inverses = jnp.concatenate([upper, jnp.concatenate([corner, second], axis=-1)], axis=-2)
        size *= 2  # (..., total / size, size, size)
    return inverses[..., 0, :channels, :channels]


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, precision=PRECISION)
