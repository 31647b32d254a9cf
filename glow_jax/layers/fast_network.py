"""A coupling network computed fast: as products on a CPU or NVIDIA GPU, by convolutions elsewhere.

The network has its own gradient: JAX's, through both branches, would keep what either branch needs.
Only reverse-mode differentiation works, not `jax.jvp`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from glow_jax.kernels.gpu import network_gradient_on_gpu
from glow_jax.kernels.products import (
    NetworkWeights,
    Precision,
    network_by_products,
    network_gradient_on_cpu,
)
from glow_jax.layers.convolution import Formulation, choose, conv1x1, conv3x3


class Foldable(Protocol):
    """Parameters, a tree of arrays, that fold into a network's weights."""

    def folded(self, x: jax.Array) -> NetworkWeights:
        """The weights for an input like `x`, in its dtype."""
        ...


# (precision, weights, x) -> the output, and the second hidden layer.
_Convolutions = Callable[[Precision, NetworkWeights, jax.Array], tuple[jax.Array, jax.Array]]


class _Kept(NamedTuple):
    """What the gradient keeps.

    It keeps the parameters, not the folded weights, which a scan would stack. Computing the first
    hidden layer again is cheaper than keeping it. Its sums then have another order: a unit that is
    zero up to rounding may be on in one direction and off in the other.
    """

    network: Foldable
    x: jax.Array  # (B, H, W, I)
    second: jax.Array  # (B, H, W, hidden): the second hidden layer


def _run(
    convolutions: _Convolutions,
    formulation: Formulation,
    precision: Precision,
    network: Foldable,
    x: jax.Array,
) -> jax.Array:
    """A network without its last bias: (B, H, W, I) -> (B, H, W, O).

    Args:
        convolutions: the network by its definition.
        formulation: "products", or "platform" for what is fast on the platform.
        precision: of every convolution and product, of the gradient too.
        network: its parameters.
        x: its input.
    """
    return _forward(convolutions, formulation, precision, network, x)[0]


def _forward(
    convolutions: _Convolutions,
    formulation: Formulation,
    precision: Precision,
    network: Foldable,
    x: jax.Array,
) -> tuple[jax.Array, _Kept]:
    weights = network.folded(x)
    products, definition = (partial(way, precision) for way in (network_by_products, convolutions))
    y, second = choose(formulation, products, definition, weights, x, on_gpu=products)
    return y, _Kept(network, x, second)


def _backward(
    _: _Convolutions,
    formulation: Formulation,
    precision: Precision,
    kept: _Kept,
    y_gradient: jax.Array,
) -> tuple[Foldable, jax.Array]:
    weights, unfold = jax.vjp(lambda network: network.folded(kept.x), kept.network)
    gradient, x_gradient = choose(
        formulation,
        partial(network_gradient_on_cpu, precision),
        partial(_gradient_by_convolutions, precision),
        weights,
        kept.x,
        kept.second,
        y_gradient,
        on_gpu=partial(network_gradient_on_gpu, precision),
    )
    return unfold(gradient)[0], x_gradient


run_fast = jax.custom_vjp(_run, nondiff_argnums=(0, 1, 2))
run_fast.defvjp(_forward, _backward)


def _gradient_by_convolutions(
    precision: Precision,
    weights: NetworkWeights,
    x: jax.Array,
    second: jax.Array,
    y_gradient: jax.Array,
) -> tuple[NetworkWeights, jax.Array]:
    """The gradients of weights and input; the first hidden layer is computed again."""
    outer, inner = partial(conv3x3, precision=precision), partial(conv1x1, precision=precision)

    def first_layer(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return jax.nn.relu(outer(x, kernel) + bias)

    _, through_out = jax.vjp(outer, second, weights.kernel_out)
    second_gradient, out_gradient = through_out(y_gradient)
    second_gradient = jnp.where(second > 0, second_gradient, 0)
    first, through_in = jax.vjp(first_layer, x, weights.kernel_in, weights.bias_in)
    _, through_hidden = jax.vjp(inner, first, weights.kernel_hidden)
    first_gradient, hidden_gradient = through_hidden(second_gradient)
    x_gradient, in_gradient, bias_gradient = through_in(first_gradient)
    gradient = NetworkWeights(
        kernel_in=in_gradient,
        bias_in=bias_gradient,
        kernel_hidden=hidden_gradient,
        bias_hidden=jnp.sum(second_gradient, axis=(0, 1, 2)),
        kernel_out=out_gradient,
    )
    return gradient, x_gradient
