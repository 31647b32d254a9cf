"""Convolutions, and the two modules that use them.

A convolution is computed by `jax.lax`, or as matrix products (`glow_jax.kernels`), which are faster
on a CPU. The platform that runs the program decides, not the one that traces it: a program lowered
on a CPU for a GPU holds convolutions.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.kernels.products import PRECISION, conv3x3_by_products, pad, shifted

Formulation = Literal["platform", "products", "convolution"]
"""How convolutions are computed; "platform" picks the fast way for the platform."""

_T = TypeVar("_T")


def choose(
    formulation: Formulation,
    products: Callable[..., _T],
    convolution: Callable[..., _T],
    *operands: object,
) -> _T:
    """Call one of two functions that compute the same result.

    Args:
        formulation: which one; "platform" means products on a CPU and convolutions elsewhere.
        products: the function that uses matrix products.
        convolution: the function that uses convolutions.
        operands: their arguments, trees of arrays.
    """
    if formulation == "platform":
        return jax.lax.platform_dependent(*operands, cpu=products, default=convolution)
    return (products if formulation == "products" else convolution)(*operands)


def conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A linear map of the channels: (B, H, W, I), (I, O) -> (B, H, W, O)."""
    return jnp.matmul(x, kernel, precision=PRECISION)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution, zero-padded: (B, H, W, I), (3, 3, I, O) -> (B, H, W, O)."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=PRECISION,
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


def _edge(kernel: jax.Array, height: int, width: int) -> jax.Array:
    """The difference that padding with ones makes: (3, 3, I, O) -> (1, H, W, O)."""
    inside = jnp.zeros((1, height, width, 1), kernel.dtype)
    windows = shifted(pad(inside, 1.0))  # 9 x (1, H, W, 1)
    edge_kernel = jnp.sum(kernel, axis=2).reshape(9, -1)  # (9, O)
    return sum(
        (window * weights for window, weights in zip(windows, edge_kernel, strict=True)),
        start=jnp.zeros((), kernel.dtype),
    )


class HiddenConv(nnx.Module):
    """A 3x3 or 1x1 convolution without bias, because an actnorm follows it."""

    def __init__(self, inputs: int, outputs: int, *, size: Literal[1, 3], key: jax.Array):
        """Draw the kernel, (3, 3, inputs, outputs) or (inputs, outputs), from N(0, 0.05)."""
        shape = (3, 3, inputs, outputs) if size == 3 else (inputs, outputs)
        self.kernel = nnx.Param(0.05 * jax.random.normal(key, shape))

    def __call__(self, x: jax.Array, formulation: Formulation) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        kernel = self.kernel[...]
        return conv1x1(x, kernel) if kernel.ndim == 2 else conv3x3_as(formulation, x, kernel)


class ZeroConv(nnx.Module):
    """The last 3x3 convolution of a coupling network or a prior, initialised to zero.

    y = (conv(x) + bias) * exp(3 * logs)    (Kingma & Dhariwal 2018, section 3.3, and their code)

    With `pad_ones` the convolution pads with ones instead of zeros, as rosinality/glow-pytorch
    does. This equals zero padding, plus an edge kernel convolved with the indicator of the padding.
    The edge kernel is the sum of the kernel over its inputs.

    Attributes:
        formulation: how the convolution is computed.
    """

    def __init__(self, inputs: int, outputs: int, *, pad_ones: bool = False):
        """Start as the map that returns zero."""
        self.kernel = nnx.Param(jnp.zeros((3, 3, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.logs = nnx.Param(jnp.zeros(outputs))
        self.pad_ones = pad_ones
        self.formulation: Formulation = "platform"

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        kernel = self.scaled_kernel().astype(x.dtype)
        return conv3x3_as(self.formulation, x, kernel) + self.scaled_bias(x)

    def scaled_kernel(self) -> jax.Array:
        """The kernel times the scale, (3, 3, I, O)."""
        return self.kernel[...] * jnp.exp(3 * self.logs[...])

    def scaled_bias(self, x: jax.Array) -> jax.Array:
        """What to add to a zero-padded convolution by `scaled_kernel`: (O,) or (1, H, W, O)."""
        bias = self.bias[...] * jnp.exp(3 * self.logs[...])
        if self.pad_ones:
            bias += _edge(self.scaled_kernel(), *x.shape[1:3])
        return bias.astype(x.dtype)
