"""The one home of convolutions: how they are computed, and the two modules made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from glow_jax.kernels.products import (
    PRECISION,
    Fold,
    conv3x3_by_products,
    network_by_products,
    pad,
    shifted,
)

Formulation = Literal["matmul", "convolution"]

_OVERRIDE: ContextVar[Formulation | None] = ContextVar("convolution_formulation", default=None)


@contextmanager
def formulation(name: Formulation) -> Iterator[None]:
    """Compute every convolution in this context as `name`, whatever the backend.

    For tests and benchmarks: JAX forgets all compiled functions on the way in and out, as it cannot
    know that they depend on this.
    """
    token = _OVERRIDE.set(name)
    jax.clear_caches()
    try:
        yield
    finally:
        _OVERRIDE.reset(token)
        jax.clear_caches()


def _current_formulation() -> Formulation:
    by_backend: Formulation = "matmul" if jax.default_backend() == "cpu" else "convolution"
    return _OVERRIDE.get() or by_backend


def conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A linear map of the channels: (B, H, W, I), (I, O) -> (B, H, W, O)."""
    return jnp.matmul(x, kernel, precision=PRECISION)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution, zero-padded: (B, H, W, I), (3, 3, I, O) -> (B, H, W, O)."""
    if _current_formulation() == "matmul":
        return conv3x3_by_products(x, kernel)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=PRECISION,
    )


def network(fold: Fold, x: jax.Array, parameters: Any) -> jax.Array:
    """3x3 convolution and relu, 1x1 convolution and relu, 3x3: (B, H, W, I) -> (B, H, W, O).

    Args:
        fold: makes `NetworkWeights` of `parameters`, in the type of `x`.
        x: the input.
        parameters: an array tree.
    """
    if _current_formulation() == "matmul":
        return network_by_products(fold, x, parameters)
    weights = fold(parameters, x.dtype)
    h = jax.nn.relu(conv3x3(x, weights.kernel_in) + weights.bias_in)
    h = jax.nn.relu(conv1x1(h, weights.kernel_hidden) + weights.bias_hidden)
    return conv3x3(h, weights.kernel_out)


def _edge(kernel: jax.Array, height: int, width: int) -> jax.Array:
    """What padding with ones adds to a zero-padded convolution: (3, 3, I, O) -> (1, H, W, O)."""
    inside = jnp.zeros((1, height, width, 1), kernel.dtype)
    windows = shifted(pad(inside, 1.0))  # 9 x (1, H, W, 1)
    edge_kernel = jnp.sum(kernel, axis=2).reshape(9, -1)  # (9, O)
    return sum(
        (window * weights for window, weights in zip(windows, edge_kernel, strict=True)),
        start=jnp.zeros((), kernel.dtype),
    )


class HiddenConv(nnx.Module):
    """A 3x3 or 1x1 convolution without bias: an actnorm follows it."""

    def __init__(self, inputs: int, outputs: int, *, size: Literal[1, 3], key: jax.Array):
        """Draw the kernel, (size, size, inputs, outputs), from N(0, 0.05)."""
        self.kernel = nnx.Param(0.05 * jax.random.normal(key, (size, size, inputs, outputs)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        kernel = self.kernel[...]
        return conv3x3(x, kernel) if kernel.shape[0] == 3 else conv1x1(x, kernel[0, 0])


class ZeroConv(nnx.Module):
    """The 3x3 convolution that ends a coupling network or a prior, zero at the start.

    y = (conv(x) + bias) * exp(3 * logs)    (Kingma & Dhariwal 2018, section 3.3, and their code)

    With `pad_ones` the convolution pads with ones instead of zeros, as rosinality/glow-pytorch
    does. That equals zero padding plus an edge kernel, the sum of the kernel over its inputs,
    convolved with the indicator of the padding.
    """

    def __init__(self, inputs: int, outputs: int, *, pad_ones: bool = False):
        """Start as the map to zero."""
        self.kernel = nnx.Param(jnp.zeros((3, 3, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.logs = nnx.Param(jnp.zeros(outputs))
        self.pad_ones = pad_ones

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, I) -> (B, H, W, O)."""
        return conv3x3(x, self.scaled_kernel().astype(x.dtype)) + self.scaled_bias(x)

    def scaled_kernel(self) -> jax.Array:
        """Kernel of the convolution, the scale multiplied in: (3, 3, I, O)."""
        return self.kernel[...] * jnp.exp(3 * self.logs[...])

    def scaled_bias(self, x: jax.Array) -> jax.Array:
        """What a zero-padded convolution by `scaled_kernel` lacks: (O,), or (1, H, W, O)."""
        bias = self.bias[...] * jnp.exp(3 * self.logs[...])
        if self.pad_ones:
            bias += _edge(self.scaled_kernel(), *x.shape[1:3])
        return bias.astype(x.dtype)
