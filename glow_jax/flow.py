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
# Positions that reversible steps take at a time: enough for fast matrix products.
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

    A part of the images after the other: what is held of them is what memory is needed for.
    """
    return _reversible_forward(graph, params, buffers, x)[0]


def _reversible_forward(
    graph: nnx.GraphDef, params: nnx.State, buffers: nnx.State, x: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    run = partial(_run_steps, nnx.merge(graph, params, buffers), remat=False)
    y, total = jax.lax.map(run, _split_batch(x, _parts(x)))
    y = y.reshape(x.shape)
    return (y, total.reshape(x.shape[0])), (params, buffers, y)


def _reversible_backward(graph: nnx.GraphDef, kept: Any, gradients: Any) -> Any:
    """The scan reversed: each step's input from its output, and the gradients with it."""
    params, buffers, y = kept
    y_gradient, total_gradient = gradients
    parts = _parts(y)
    total_gradient = _split_batch(total_gradient, parts)

    def back(carry: Any, step: tuple[nnx.State, nnx.State]) -> Any:
        permutation = nnx.merge(graph, *step).permutation.prepare_inverse()

        def back_part(total: nnx.State, part: Any) -> Any:
            gradient, *part = _step_backward(graph, *step, permutation, *part)
            return jax.tree.map(jnp.add, total, gradient), part

        zeros = jax.tree.map(jnp.zeros_like, step[0])
        gradient, carry = jax.lax.scan(back_part, zeros, (*carry, total_gradient))
        return tuple(carry), gradient

    carry = tuple(_split_batch(leaf, parts) for leaf in (y, y_gradient))
    (_, x_gradient), gradient = jax.lax.scan(back, carry, (params, buffers), reverse=True)
    return gradient, None, x_gradient.reshape(y.shape)


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


def _parts(x: jax.Array) -> int:
    """In how many equal parts a batch, (B, H, W, C), is taken: of 512 positions or one image."""
    batch, height, width, _ = x.shape
    fewest = -(-batch * height * width // _POSITIONS)
    return next(parts for parts in range(min(fewest, batch), batch + 1) if batch % parts == 0)


def _split_batch(x: jax.Array, parts: int) -> jax.Array:
    """(B, ...) -> (parts, B / parts, ...)."""
    return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])


_reversible_steps.defvjp(_reversible_forward, _reversible_backward)
