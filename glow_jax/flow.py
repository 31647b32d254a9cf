"""One step of flow, and a level: squeeze, then K steps run as one scan."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Conv1x1,
    Conv1x1LU,
    Reverse,
    Shuffle,
    Split,
    Squeeze,
)
from glow_jax.layers.bijection import sum_dtype

Memory = Literal["fast", "remat", "reversible"]
# Positions that a reversible gradient takes at a time: enough for a CPU's fast matrix products.
_POSITIONS = 512


class Step(Bijection):
    """Actnorm, then a permutation or 1x1 convolution, then a coupling (paper, figure 2a).

    Forward:   y = coupling(permutation(actnorm(x)))
    log|det|:  the sum of the three
    Inverse:   x = actnorm^-1(permutation^-1(coupling^-1(y)))
    """

    def __init__(
        self,
        channels: int,
        *,
        hidden_channels: int,
        flow_permutation: str,
        flow_coupling: str,
        LU_decomposed: bool,
        actnorm_scale: float,
        pad_ones: bool,
        rngs: nnx.Rngs,
    ):
        """Build one step on `channels` channels; the rest is as in `ModelConfig`."""
        self.actnorm = ActNorm(channels, scale=actnorm_scale)
        if flow_permutation == "invconv":
            self.permutation = (Conv1x1LU if LU_decomposed else Conv1x1)(
                channels, key=rngs.params()
            )
        elif flow_permutation == "shuffle":
            self.permutation = Shuffle(channels, key=rngs.params())
        else:
            self.permutation = Reverse()
        self.coupling = (AffineCoupling if flow_coupling == "affine" else AdditiveCoupling)(
            channels, hidden_channels=hidden_channels, pad_ones=pad_ones, rngs=rngs
        )

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H, W, C), (B,)."""
        x, actnorm_logdet = self.actnorm.forward(x)
        x, permutation_logdet = self.permutation.forward(x)
        y, coupling_logdet = self.coupling.forward(x)
        return y, actnorm_logdet + permutation_logdet + coupling_logdet

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = self.coupling.inverse(y)
        return self.actnorm.inverse(self.permutation.inverse(x))

    def initialise(self, x: jax.Array) -> jax.Array:
        """Initialise every actnorm in order, each from what reaches it; return the output."""
        x = self.actnorm.initialise(x)
        x, _ = self.permutation.forward(x)
        return self.coupling.initialise(x)


class Level(Bijection):
    """Squeeze and K steps, and, in every level but the last, the split that follows them.

    Forward:   y = step_K(... step_1(squeeze(x)))
    log|det|:  the sum over steps
    Inverse:   the same scan reversed

    The steps are one stacked module: each of its arrays has a leading axis of length K, so that
    compile time does not grow with K.

    Attributes:
        memory: what a gradient keeps of the forward pass. "fast": what it is fastest with. "remat":
            each step's input, from which the step is computed again. "reversible": the level's
            output alone, from which each step's input is computed by inversion, last step first.
    """

    def __init__(
        self, build_step: Callable[[nnx.Rngs], Step], *, K: int, split: Split | None, rngs: nnx.Rngs
    ):
        """Build a level.

        Args:
            build_step: makes one step from random keys.
            K: the number of steps.
            split: what follows the steps; None in the last level.
            rngs: random keys.
        """
        self.squeeze = Squeeze()
        self.steps = nnx.vmap(build_step)(rngs.split(K))
        self.split = split
        self.memory: Memory = "remat"

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H/2, W/2, 4C), (B,)."""
        x, _ = self.squeeze.forward(x)
        if self.memory == "reversible":
            return _reversible_steps(*nnx.split(self.steps, nnx.Param, ...), x)
        return _run_steps(self.steps, x, remat=self.memory == "remat")

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H/2, W/2, 4C) -> (B, H, W, C)."""

        def run(y, step: Step):
            return step.inverse(y), None

        x, _ = jax.lax.scan(run, y, _prepare_inverses(self.steps), reverse=True)
        return self.squeeze.inverse(x)

    def initialise(self, x: jax.Array) -> jax.Array:
        """Initialise every actnorm of the steps from `x`, (B, H, W, C); return the output."""

        def run(x, step: Step):
            return step.initialise(x), step

        x, _ = self.squeeze.forward(x)
        y, self.steps = jax.lax.scan(run, x, self.steps)
        return y


def _prepare_inverses(steps: Step) -> Step:
    """Stacked steps that invert their matrices here, once per call, not among the products."""

    # A scan, because batched matrices can wait for ever: see conv1x1.py.
    def prepare(_: None, permutation: Bijection) -> Any:
        return None, permutation.prepare_inverse()

    K = len(steps.actnorm.bias[...])
    steps = nnx.clone(steps)
    _, steps.permutation = jax.lax.scan(prepare, None, steps.permutation, length=K)
    return steps


def _run_steps(steps: Step, x: jax.Array, *, remat: bool) -> tuple[jax.Array, jax.Array]:
    """Stacked steps one after the other: the output, and the sum of the log-determinants."""

    def run(carry: Any, step: Step) -> Any:
        x, total = carry
        x, logdet = step.forward(x)
        return (x, total + logdet), None

    total = jnp.zeros(x.shape[0], sum_dtype(x.dtype))
    (y, total), _ = jax.lax.scan(jax.checkpoint(run) if remat else run, (x, total), steps)
    return y, total


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reversible_steps(
    graph: nnx.GraphDef, params: nnx.State, buffers: nnx.State, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`_run_steps` with a gradient that needs the output alone (Gomez et al. 2017, 1707.04585).

    Where a gradient is taken, a part of the images goes after the other, in both directions: what
    a step computes of them, above all its wide hidden layers, is all that memory is needed for.
    """
    return _run_steps(nnx.merge(graph, params, buffers), x, remat=False)


def _reversible_forward(
    graph: nnx.GraphDef, params: nnx.State, buffers: nnx.State, x: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    run = partial(_run_steps, nnx.merge(graph, params, buffers), remat=False)
    parts = jax.lax.map(run, _into_parts(x, _part_size(x)))
    y, total = (_out_of_parts(part, len(x)) for part in parts)
    return (y, total), (params, buffers, y)


def _reversible_backward(graph: nnx.GraphDef, kept: Any, gradients: Any) -> Any:
    """The scan reversed: each step's input from its output, and the gradients with it."""
    params, buffers, y = kept
    # Padding passes through the inverse as images of zeros, and has no gradient.
    y_parts, y_gradient, total_gradient = (
        _into_parts(leaf, _part_size(y)) for leaf in (y, *gradients)
    )

    def back(carry: Any, step: tuple[nnx.State, nnx.State]) -> Any:
        # Here, though it costs more than before the scan: K inverses would grow with the depth.
        permutation = nnx.merge(graph, *step).permutation.prepare_inverse()

        def back_part(total: nnx.State, part: Any) -> Any:
            gradient, *part = _step_backward(graph, *step, permutation, *part)
            return jax.tree.map(jnp.add, total, gradient), part

        zeros = jax.tree.map(jnp.zeros_like, step[0])
        gradient, carry = jax.lax.scan(back_part, zeros, (*carry, total_gradient))
        return tuple(carry), gradient

    carry = (y_parts, y_gradient)
    (_, x_gradient), gradient = jax.lax.scan(back, carry, (params, buffers), reverse=True)
    return gradient, None, _out_of_parts(x_gradient, len(y))


def _step_backward(
    graph: nnx.GraphDef,
    params: nnx.State,
    buffers: nnx.State,
    permutation: Bijection,
    y: jax.Array,
    y_gradient: jax.Array,
    total_gradient: jax.Array,
) -> tuple[nnx.State, jax.Array, jax.Array]:
    """From a step's output: the gradient of its parameters, its input, and the input's gradient."""
    step = nnx.merge(graph, params, buffers)

    def layer(name: str, params: nnx.State) -> Any:
        return getattr(nnx.merge(graph, params, buffers), name)

    # The coupling in pieces, as its network has to be computed only once for both directions.
    x1, y2 = jnp.split(y, 2, axis=-1)
    x1_gradient, y2_gradient = jnp.split(y_gradient, 2, axis=-1)
    out, through_network = jax.vjp(lambda p, x: layer("coupling", p).network(x), params, x1)
    x2 = step.coupling.move_back(out, y2)
    _, through_move = jax.vjp(step.coupling.move, out, x2)
    out_gradient, x2_gradient = through_move((y2_gradient, total_gradient))
    params_gradient, from_network = through_network(out_gradient)
    x = jnp.concatenate([x1, x2], axis=-1)
    x_gradient = jnp.concatenate([x1_gradient + from_network, x2_gradient], axis=-1)

    for name, inverse in {"permutation": permutation, "actnorm": step.actnorm}.items():
        x = inverse.inverse(x)
        _, through = jax.vjp(lambda p, x, name=name: layer(name, p).forward(x), params, x)
        gradient, x_gradient = through((x_gradient, total_gradient))
        params_gradient = jax.tree.map(jnp.add, params_gradient, gradient)
    return params_gradient, x, x_gradient


def _part_size(x: jax.Array) -> int:
    """How many images a part of a batch, (B, H, W, C), has: of 512 positions or one image."""
    batch, height, width, _ = x.shape
    parts = -(-batch // max(1, _POSITIONS // (height * width)))
    return -(-batch // max(1, parts)) or 1


def _into_parts(x: jax.Array, size: int) -> jax.Array:
    """(B, ...) -> (parts, size, ...), the last one padded with zeros."""
    padding = [(0, -len(x) % size), *[(0, 0)] * (x.ndim - 1)]
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])


def _out_of_parts(parts: jax.Array, batch: int) -> jax.Array:
    """(parts, size, ...) -> (B, ...)."""
    return parts.reshape(-1, *parts.shape[2:])[:batch]


_reversible_steps.defvjp(_reversible_forward, _reversible_backward)
