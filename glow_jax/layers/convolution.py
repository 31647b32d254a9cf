"""Convolutions, and the two modules that use them.

A convolution is computed by `jax.lax`, or as matrix products (`glow_jax.kernels`), which are faster
on a CPU. The platform that runs the program decides, not the one that traces it: a program lowered
on a CPU for a TPU holds convolutions.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.kernels.products import PRECISION, Precision, conv3x3_by_products, pad, shifted

Formulation = Literal["platform", "products", "convolution"]
"""How convolutions are computed; "platform" picks the fast way for the platform."""

Padding = Literal["zeros", "ones", "edge_bias"]
"""What surrounds the input of a 3x3 convolution; see `zero_padded`."""

_T = TypeVar("_T")


def choose(
    formulation: Formulation,
    products: Callable[..., _T],
    convolution: Callable[..., _T],
    *operands: object,
    on_gpu: Callable[..., _T] | None = None,
) -> _T:
    """Call one of the functions that compute the same result.

    Args:
        formulation: which one; "platform" means products on a CPU, `on_gpu` on an NVIDIA GPU, and
            convolutions elsewhere.
        products: the function that uses matrix products.
        convolution: the function that uses convolutions.
        operands: their arguments, trees of arrays.
        on_gpu: the function for an NVIDIA GPU; None for convolutions there too.
    """
    if formulation == "platform":
        ways = {"cpu": products} if on_gpu is None else {"cpu": products, "cuda": on_gpu}
        return jax.lax.platform_dependent(*operands, **ways, default=convolution)
    return (products if formulation == "products" else convolution)(*operands)


def conv1x1(x: jax.Array, kernel: jax.Array, precision: Precision = PRECISION) -> jax.Array:
    """A linear map of the channels: (B, H, W, I), (I, O) -> (B, H, W, O)."""
    return jnp.matmul(x, kernel, precision=precision)


def conv3x3(x: jax.Array, kernel: jax.Array, precision: Precision = PRECISION) -> jax.Array:
    """A 3x3 convolution, zero-padded: (B, H, W, I), (3, 3, I, O) -> (B, H, W, O)."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


def conv3x3_as(formulation: Formulation, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv3x3` in the given formulation.

    With "platform", only reverse-mode differentiation works, not `jax.jvp`.
    """
    if formulation == "platform":
        return _by_platform(x, kernel)
    return choose(formulation, conv3x3_by_products, conv3x3, x, kernel)


def _choose_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return choose("platform", conv3x3_by_products, conv3x3, x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _choose_conv3x3(x, kernel), (x, kernel)


def _backward(
    kept: tuple[jax.Array, jax.Array], y_gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def pull_back(
        conv: Callable[[jax.Array, jax.Array], jax.Array],
        x: jax.Array,
        kernel: jax.Array,
        y_gradient: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(conv, x, kernel)[1](y_gradient)

    products, convolution = (partial(pull_back, c) for c in (conv3x3_by_products, conv3x3))
    return choose("platform", products, convolution, *kept, y_gradient)


# It has its own gradient: JAX's, through both branches, would keep what either branch needs.
_by_platform = jax.custom_vjp(_choose_conv3x3)
_by_platform.defvjp(_forward, _backward)


def zero_padded(
    kernel: jax.Array, bias: jax.Array, padding: Padding, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The zero-padded convolution that equals one with another padding.

    Both other paddings add a kernel convolved with the indicator of the padding, which is one on
    the ring around the image and zero inside. It changes the border only, so no (O,) bias does it.

    Args:
        kernel: (3, 3, I, O); with "edge_bias" (3, 3, I + 1, O), whose last input is the indicator.
        bias: (O,).
        padding: "zeros"; "ones", which adds the sum of the kernel over its inputs; or "edge_bias".
        x: the input, (B, H, W, I).

    Returns:
        The kernel, (3, 3, I, O), and the bias, (O,) or (H, W, O).
    """
    if padding == "zeros":
        return kernel, bias
    if padding == "ones":
        edge = jnp.sum(kernel, axis=2)
    else:
        kernel, edge = kernel[:, :, :-1], kernel[:, :, -1]
    return kernel, bias + _edge_bias(edge, *x.shape[1:3])


def _edge_bias(edge: jax.Array, height: int, width: int) -> jax.Array:
    """The indicator of the padding, convolved: (3, 3, O) -> (H, W, O)."""
    inside = jnp.zeros((1, height, width, 1), edge.dtype)
    windows = shifted(pad(inside, 1.0))  # 9 x (1, H, W, 1)
    return sum(
        (window[0] * weights for window, weights in zip(windows, edge.reshape(9, -1), strict=True)),
        start=jnp.zeros((), edge.dtype),
    )


class HiddenConv(nnx.Module):
    """A 3x3 or 1x1 convolution without bias, because an actnorm follows it.

    A 3x3 one is padded with zeros, or has an edge bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        size: Literal[1, 3],
        padding: Padding = "zeros",
        key: jax.Array,
    ):
        """Draw the kernel, (3, 3, inputs, outputs) or (inputs, outputs), from N(0, 0.05).

        An edge bias is one input more; padding with ones is for the last convolution only.
        """
        self.padding: Padding = "edge_bias" if size == 3 and padding == "edge_bias" else "zeros"
        inputs += self.padding == "edge_bias"
        shape = (3, 3, inputs, outputs) if size == 3 else (inputs, outputs)
        self.kernel = nnx.Param(0.05 * jax.random.normal(key, shape))

    def __call__(self, x: jax.Array, formulation: Formulation) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        kernel = self.kernel[...]
        if kernel.ndim == 2:
            return conv1x1(x, kernel)
        no_bias = jnp.zeros(kernel.shape[-1], kernel.dtype)
        kernel, bias = zero_padded(kernel, no_bias, self.padding, x)
        return conv3x3_as(formulation, x, kernel) + bias


class ZeroConv(nnx.Module):
    """The last 3x3 convolution of a coupling network or a prior, initialised to zero.

    y = (conv(x) + bias) * exp(3 * logs)    (Kingma & Dhariwal 2018, section 3.3, and their code)

    Its padding is zeros, as in Glow-PyTorch, ones, as in rosinality/glow-pytorch, or an edge bias,
    as in openai/glow.

    Attributes:
        padding: see `zero_padded`.
        formulation: how the convolution is computed.
    """

    def __init__(self, inputs: int, outputs: int, *, padding: Padding = "zeros"):
        """Start as the map that returns zero."""
        inputs += padding == "edge_bias"
        self.kernel = nnx.Param(jnp.zeros((3, 3, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.logs = nnx.Param(jnp.zeros(outputs))
        self.padding: Padding = padding
        self.formulation: Formulation = "platform"

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        kernel, bias = self.scaled(x)
        return conv3x3_as(self.formulation, x, kernel.astype(x.dtype)) + bias.astype(x.dtype)

    def scaled(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The kernel and the bias of the same convolution of `x`, zero-padded and without scale.

        (B, H, W, I) -> (3, 3, I, O), (O,) or (H, W, O).
        """
        scale = jnp.exp(3 * self.logs[...])
        return zero_padded(self.kernel[...] * scale, self.bias[...] * scale, self.padding, x)
