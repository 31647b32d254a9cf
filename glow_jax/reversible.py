"""Gradients that need only a stack's output (Gomez et al. 2017, arXiv 1707.04585).

Each bijection's input is computed again from its output, last bijection first. A batch is processed
in parts, one after the other, in both directions. Memory is then needed only for what a bijection
computes for one part, above all for the wide hidden layers of couplings.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar, TypeVarTuple

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax import stack

_T = TypeVar("_T")
_Operands = TypeVarTuple("_Operands")
# Positions (pixels of a level, over images) in a part. On a CPU they are enough for fast matrix
# products; an accelerator with as few would wait for one part after the other.
_CPU_POSITIONS = 512
_ACCELERATOR_POSITIONS = 16384


def forward(bijections: stack.Stack, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`stack.forward`, with a gradient in reverse that keeps the output alone.

    Args:
        bijections: stacked; they keep the shape of their input.
        x: (B, H, W, C).

    Returns:
        The output, (B, H, W, C), and the sum of the log-determinants, (B,).
    """
    return _run(*nnx.split(bijections, nnx.Param, ...), x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    graph: nnx.GraphDef, params: nnx.State, buffers: nnx.State, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return stack.forward(nnx.merge(graph, params, buffers), x)


class _Kept(NamedTuple):
    params: nnx.State
    buffers: nnx.State
    y: jax.Array  # (B, H, W, C)


def _run_forward(
    graph: nnx.GraphDef, params: nnx.State, buffers: nnx.State, x: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], _Kept]:
    def run(
        positions: int, params: nnx.State, buffers: nnx.State, x: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        bijections = nnx.merge(graph, params, buffers)
        parts = _into_parts(x, _part_size(x, positions))
        outputs = jax.lax.map(partial(stack.forward, bijections), parts)
        y, total = (_out_of_parts(part, len(x)) for part in outputs)
        return y, total

    y, total = _by_platform(run, params, buffers, x)
    return (y, total), _Kept(params, buffers, y)


def _run_backward(
    graph: nnx.GraphDef, kept: _Kept, gradients: tuple[jax.Array, jax.Array]
) -> tuple[nnx.State, None, jax.Array]:
    x_gradient, gradient = _by_platform(partial(_pull_back, graph), *kept, *gradients)
    return gradient, None, x_gradient


def _pull_back(
    graph: nnx.GraphDef,
    positions: int,
    params: nnx.State,
    buffers: nnx.State,
    y: jax.Array,
    y_gradient: jax.Array,
    total_gradient: jax.Array,
) -> tuple[jax.Array, nnx.State]:
    """Run the scan backwards: compute each input from its output, and the gradients with it."""
    # The padding goes through the inverse as images of zeros; its gradient is zero.
    y_parts, y_gradient, total_gradient = (
        _into_parts(leaf, _part_size(y, positions)) for leaf in (y, y_gradient, total_gradient)
    )

    def undo(
        carry: tuple[jax.Array, jax.Array], arrays: tuple[nnx.State, nnx.State]
    ) -> tuple[tuple[jax.Array, jax.Array], nnx.State]:
        # Inverting here costs more time than before the scan, but K stored inverses would cost
        # memory that grows with K.
        bijection = nnx.merge(graph, *arrays).prepare_inverse()

        def undo_part(total: nnx.State, part: tuple[jax.Array, jax.Array, jax.Array]):
            x, x_gradient, gradient = bijection.inverse_and_gradient(*part)
            return jax.tree.map(jnp.add, total, gradient), (x, x_gradient)

        zeros = jax.tree.map(jnp.zeros_like, arrays[0])
        gradient, carry = jax.lax.scan(undo_part, zeros, (*carry, total_gradient))
        return carry, gradient

    carry = (y_parts, y_gradient)
    (_, x_gradient), gradient = jax.lax.scan(undo, carry, (params, buffers), reverse=True)
    return _out_of_parts(x_gradient, len(y)), gradient


_run.defvjp(_run_forward, _run_backward)


def _by_platform(function: Callable[[int, *_Operands], _T], *operands: *_Operands) -> _T:
    """Call `function(positions, *operands)` with as many positions as suit the platform."""
    on_cpu = partial(function, _CPU_POSITIONS)
    elsewhere = partial(function, _ACCELERATOR_POSITIONS)
    return jax.lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)


def _part_size(x: jax.Array, positions: int) -> int:
    """Images in a part of a batch, (B, H, W, C): at most `positions` positions, or one image."""
    batch, height, width, _ = x.shape
    parts = -(-batch // max(1, positions // (height * width)))
    return -(-batch // max(1, parts)) or 1


def _into_parts(x: jax.Array, size: int) -> jax.Array:
    """(B, ...) -> (parts, size, ...), the last part padded with zeros."""
    padding = [(0, -len(x) % size), *[(0, 0)] * (x.ndim - 1)]
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])


def _out_of_parts(parts: jax.Array, batch: int) -> jax.Array:
    """(parts, size, ...) -> (B, ...)."""
    return parts.reshape(-1, *parts.shape[2:])[:batch]
