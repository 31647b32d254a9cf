"""The network of a coupling layer (Kingma & Dhariwal 2018, section 3.3, and their code)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.kernels.products import (
    NetworkWeights,
    network_by_products,
    network_gradient_by_products,
)
from glow_jax.layers.actnorm import ActNorm
from glow_jax.layers.convolution import Formulation, HiddenConv, ZeroConv, choose, conv1x1, conv3x3


class CouplingNetwork(nnx.Module):
    """3x3 convolution, actnorm, ReLU; 1x1 convolution, actnorm, ReLU; zero-initialised 3x3 one.

    Attributes:
        dtype: "bfloat16" to compute in it; None for the dtype of the input. Either way the output,
            and so everything that enters a likelihood, has the dtype of the input.
        formulation: how the convolutions are computed; None picks the fast way for the platform.
            `jax.jvp` works only with "convolution"; otherwise only reverse mode works.
    """

    def __init__(
        self, inputs: int, outputs: int, *, hidden_channels: int, pad_ones: bool, rngs: nnx.Rngs
    ):
        """Map `inputs` channels to `outputs` through two layers of `hidden_channels`."""
        self.conv_in = HiddenConv(inputs, hidden_channels, size=3, key=rngs.params())
        self.actnorm_in = ActNorm(hidden_channels)
        self.conv_hidden = HiddenConv(hidden_channels, hidden_channels, size=1, key=rngs.params())
        self.actnorm_hidden = ActNorm(hidden_channels)
        self.conv_out = ZeroConv(hidden_channels, outputs, pad_ones=pad_ones)
        self.dtype: str | None = None
        self.formulation: Formulation | None = None

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        dtype = x.dtype if self.dtype is None else jnp.dtype(self.dtype)
        h = x.astype(dtype)
        if self.formulation == "convolution":
            y, _ = _convolutions(self.folded(dtype), h)
        else:
            y = _with_own_gradient(self.formulation, self, h)
        return y.astype(x.dtype) + self.conv_out.scaled_bias(x)

    def folded(self, dtype: jnp.dtype) -> NetworkWeights:
        """The weights in `dtype`, with actnorms and scales multiplied into the kernels."""
        weights = NetworkWeights(
            *self.actnorm_in.fold(self.conv_in.kernel[...]),
            *self.actnorm_hidden.fold(self.conv_hidden.kernel[...]),
            self.conv_out.scaled_kernel(),
        )
        return jax.tree.map(lambda part: part.astype(dtype), weights)

    def initialise(self, x: jax.Array) -> None:
        """Initialise both actnorms from `x`, (B, H, W, I)."""
        h = jax.nn.relu(self.actnorm_in.initialise(self.conv_in(x, self.formulation)))
        self.actnorm_hidden.initialise(self.conv_hidden(h))


def _convolutions(weights: NetworkWeights, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output and the second hidden layer: (B, H, W, I) -> (B, H, W, O), (B, H, W, hidden)."""
    h = jax.nn.relu(conv3x3(x, weights.kernel_in) + weights.bias_in)
    h = jax.nn.relu(conv1x1(h, weights.kernel_hidden) + weights.bias_hidden)
    return conv3x3(h, weights.kernel_out), h


def _convolutions_gradient(
    weights: NetworkWeights, x: jax.Array, second: jax.Array, y_gradient: jax.Array
) -> tuple[NetworkWeights, jax.Array]:
    """The gradients of weights and input; the first hidden layer is computed again."""

    def first_layer(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return jax.nn.relu(conv3x3(x, kernel) + bias)

    _, through_out = jax.vjp(conv3x3, second, weights.kernel_out)
    second_gradient, out_gradient = through_out(y_gradient)
    second_gradient = jnp.where(second > 0, second_gradient, 0)
    first, through_in = jax.vjp(first_layer, x, weights.kernel_in, weights.bias_in)
    _, through_hidden = jax.vjp(conv1x1, first, weights.kernel_hidden)
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


class _Kept(NamedTuple):
    """What a network's gradient keeps.

    It keeps the parameters, not the folded weights, which a scan would stack. Computing the first
    hidden layer again is cheaper than keeping it. Its sums then have another order: a unit that is
    zero up to rounding may be on in one direction and off in the other.
    """

    network: CouplingNetwork
    x: jax.Array  # (B, H, W, I)
    second: jax.Array  # (B, H, W, hidden): the second hidden layer


def _by_platform(
    formulation: Formulation | None, network: CouplingNetwork, x: jax.Array
) -> jax.Array:
    """The network without the last bias: (B, H, W, I) -> (B, H, W, O)."""
    return _forward(formulation, network, x)[0]


def _forward(
    formulation: Formulation | None, network: CouplingNetwork, x: jax.Array
) -> tuple[jax.Array, _Kept]:
    weights = network.folded(x.dtype)
    y, second = choose(formulation, network_by_products, _convolutions, weights, x)
    return y, _Kept(network, x, second)


def _backward(
    formulation: Formulation | None, kept: _Kept, y_gradient: jax.Array
) -> tuple[CouplingNetwork, jax.Array]:
    weights, unfold = jax.vjp(lambda network: network.folded(kept.x.dtype), kept.network)
    gradient, x_gradient = choose(
        formulation,
        network_gradient_by_products,
        _convolutions_gradient,
        weights,
        kept.x,
        kept.second,
        y_gradient,
    )
    return unfold(gradient)[0], x_gradient


_with_own_gradient = jax.custom_vjp(_by_platform, nondiff_argnums=(0,))
_with_own_gradient.defvjp(_forward, _backward)
