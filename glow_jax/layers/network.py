"""The network of a coupling layer (Kingma & Dhariwal 2018, section 3.3, and their code)."""

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.kernels.products import NetworkWeights
from glow_jax.layers.actnorm import ActNorm
from glow_jax.layers.convolution import Formulation, HiddenConv, ZeroConv, conv1x1, conv3x3
from glow_jax.layers.fast_network import run_fast


def convolutions(weights: NetworkWeights, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The network, by its definition: three convolutions and two ReLUs.

    Actnorms and scales are part of the weights; the last bias is left to the caller.

    Returns:
        The output, (B, H, W, O), and the second hidden layer, (B, H, W, hidden).
    """
    h = jax.nn.relu(conv3x3(x, weights.kernel_in) + weights.bias_in)
    h = jax.nn.relu(conv1x1(h, weights.kernel_hidden) + weights.bias_hidden)
    return conv3x3(h, weights.kernel_out), h


class CouplingNetwork(nnx.Module):
    """3x3 convolution, actnorm, ReLU; 1x1 convolution, actnorm, ReLU; zero-initialised 3x3 one.

    Attributes:
        dtype: "bfloat16" to compute in it; None for the dtype of the input. Either way the output,
            and so everything that enters a likelihood, has the dtype of the input.
        formulation: how the convolutions are computed. `jax.jvp` works only with "convolution";
            otherwise only reverse mode works.
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
        self.formulation: Formulation = "platform"

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        h = x.astype(x.dtype if self.dtype is None else jnp.dtype(self.dtype))
        if self.formulation == "convolution":
            y, _ = convolutions(self.folded(h.dtype), h)
        else:
            y = run_fast(convolutions, self.formulation, self, h)
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
        self.actnorm_hidden.initialise(self.conv_hidden(h, self.formulation))
