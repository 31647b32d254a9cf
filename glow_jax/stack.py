"""Bijections of one kind, stacked: one scan runs them all.

Compile time does not grow with the number of bijections.
"""

import jax
import jax.numpy as jnp

from glow_jax.layers import Bijection
from glow_jax.layers.bijection import sum_dtype

Stack = Bijection
"""K bijections of one kind in one module: each of its arrays has a leading axis of length K."""


def forward(stack: Stack, x: jax.Array, *, remat: bool = False) -> tuple[jax.Array, jax.Array]:
    """Run stacked bijections one after the other.

    Args:
        stack: K bijections; none changes the shape of its input.
        x: (B, H, W, C).
        remat: whether a gradient keeps only each bijection's input and runs the bijection again.

    Returns:
        The output, (B, H, W, C), and the sum of the log-determinants, (B,).
    """

    def run(
        carry: tuple[jax.Array, jax.Array], bijection: Bijection
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, total = carry
        x, logdet = bijection.forward(x)
        return (x, total + logdet), None

    total = jnp.zeros(x.shape[0], sum_dtype(x.dtype))
    (y, total), _ = jax.lax.scan(jax.checkpoint(run) if remat else run, (x, total), stack)
    return y, total


def inverse(stack: Stack, y: jax.Array) -> jax.Array:
    """Invert stacked bijections, last one first: (B, H, W, C) -> (B, H, W, C)."""

    def undo(y: jax.Array, bijection: Bijection) -> tuple[jax.Array, None]:
        return bijection.inverse(y), None

    x, _ = jax.lax.scan(undo, y, stack, reverse=True)
    return x


def prepare_forwards(stack: Stack, length: int) -> Stack:
    """Call `prepare_forward` on each of `length` stacked bijections, on all at once."""
    return jax.vmap(lambda bijection: bijection.prepare_forward(), axis_size=length)(stack)


def prepare_inverses(stack: Stack, length: int) -> Stack:
    """Call `prepare_inverse` on each of `length` stacked bijections, on all at once."""
    return jax.vmap(lambda bijection: bijection.prepare_inverse(), axis_size=length)(stack)
