"""The network of a coupling layer (Kingma & Dhariwal 2018, section 3.3, and their code)."""

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.kernels.products import PRECISION, NetworkWeights, Precision
from glow_jax.layers.actnorm import ActNorm, moments_of
from glow_jax.layers.convolution import (
    Formulation,
    HiddenConv,
    Padding,
    ZeroConv,
    conv1x1,
    conv3x3,
    zero_padded,
)
from glow_jax.layers.fast_network import run_fast

# Values of a hidden layer during initialisation: 1 GiB in float32. All images at once would take
# more memory than training, which has fewer of them on a device.
_HIDDEN_VALUES = 2**28


def convolutions(
    precision: Precision, weights: NetworkWeights, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The network, by its definition: three convolutions and two ReLUs.

    Actnorms and scales are part of the weights; the last bias is left to the caller.

    Returns:
        The output, (B, H, W, O), and the second hidden layer, (B, H, W, hidden).
    """
    h = jax.nn.relu(conv3x3(x, weights.kernel_in, precision) + weights.bias_in)
    h = jax.nn.relu(conv1x1(h, weights.kernel_hidden, precision) + weights.bias_hidden)
    return conv3x3(h, weights.kernel_out, precision), h


class CouplingNetwork(nnx.Module):
    """3x3 convolution, actnorm, ReLU; 1x1 convolution, actnorm, ReLU; zero-initialised 3x3 one.

    Attributes:
        dtype: "bfloat16" to compute in it; None for the dtype of the input. Either way the output,
            and so everything that enters a likelihood, has the dtype of the input.
        formulation: how the convolutions are computed. `jax.jvp` works only with "convolution";
            otherwise only reverse mode works.
        precision: how exactly a GPU or TPU computes the convolutions and their gradients.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden_channels: int,
        padding: Padding = "zeros",
        logs_factor: float = 1.0,
        rngs: nnx.Rngs,
    ):
        """Map `inputs` channels to `outputs` through two layers of `hidden_channels`.

        Args:
            inputs: I.
            outputs: O.
            hidden_channels: the channels of both hidden layers.
            padding: see `zero_padded`; ones are for the last convolution only.
            logs_factor: the factor of both actnorms.
            rngs: random keys of the kernels.
        """
        self.conv_in = HiddenConv(
            inputs, hidden_channels, size=3, padding=padding, key=rngs.params()
        )
        self.actnorm_in = ActNorm(hidden_channels, factor=logs_factor)
        self.conv_hidden = HiddenConv(hidden_channels, hidden_channels, size=1, key=rngs.params())
        self.actnorm_hidden = ActNorm(hidden_channels, factor=logs_factor)
        self.conv_out = ZeroConv(hidden_channels, outputs, padding=padding)
        self.dtype: str | None = None
        self.formulation: Formulation = "platform"
        self.precision: Precision = PRECISION

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        h = x.astype(x.dtype if self.dtype is None else jnp.dtype(self.dtype))
        if self.formulation == "convolution":
            y, _ = convolutions(self.precision, self.folded(h), h)
        else:
            y = run_fast(convolutions, self.formulation, self.precision, self, h)
        _, bias = self.conv_out.scaled(x)
        return y.astype(x.dtype) + bias.astype(x.dtype)

    def folded(self, x: jax.Array) -> NetworkWeights:
        """The weights for an input like `x`, with actnorms and scales multiplied into the kernels.

        They have its dtype; an edge bias has its height and width.
        """
        kernel_in, bias_in = self.actnorm_in.fold(self.conv_in.kernel[...])
        kernel_out, _ = self.conv_out.scaled(x)
        weights = NetworkWeights(
            *zero_padded(kernel_in, bias_in, self.conv_in.padding, x),
            *self.actnorm_hidden.fold(self.conv_hidden.kernel[...]),
            kernel_out,
        )
        return jax.tree.map(lambda part: part.astype(x.dtype), weights)

    def at_a_time(self, x: jax.Array) -> int:
        """How many images like those of `x`, (B, H, W, I), to initialise from at a time."""
        hidden = x.shape[1] * x.shape[2] * self.conv_hidden.kernel.shape[-1]
        return max(1, _HIDDEN_VALUES // hidden)

    def initialise(self, x: jax.Array) -> None:
        """Initialise both actnorms from `x`, (B, H, W, I)."""

        def first(x: jax.Array) -> jax.Array:
            return self.conv_in(x, self.formulation)

        def second(x: jax.Array) -> jax.Array:
            h = jax.nn.relu(self.actnorm_in.apply(first(x)))
            return self.conv_hidden(h, self.formulation)

        self.actnorm_in.normalise(moments_of(first, x, self.at_a_time(x)))
        self.actnorm_hidden.normalise(moments_of(second, x, self.at_a_time(x)))
