"""The one home of convolutions: how they are computed, and the two modules made of them.

XLA's convolutions are slow on CPU, their gradients inside a scan most of all, so there each one is
a matrix product. On GPU and TPU the accelerator's own convolution is the natural choice. Products
have gradients of their own, so that there is reverse-mode differentiation alone, no `jax.jvp`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

Formulation = Literal["matmul", "convolution"]

# A likelihood in float32 means float32: no TF32 on GPU, no bfloat16 passes on TPU.
PRECISION = jax.lax.Precision.HIGHEST

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


@jax.custom_vjp
def conv1x1(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A linear map of the channels: (B, H, W, I), (I, O) -> (B, H, W, O)."""
    return jnp.matmul(x, kernel, precision=PRECISION)


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution, zero-padded: (B, H, W, I), (3, 3, I, O) -> (B, H, W, O)."""
    if _current_formulation() == "convolution":
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=PRECISION,
        )
    inputs, outputs = kernel.shape[2:]
    return _gather_conv3x3(x, kernel) if inputs <= outputs else _scatter_conv3x3(x, kernel)


def _shifted(padded: jax.Array) -> Iterator[jax.Array]:
    """The nine windows of a padded image, row by row: (B, H + 2, W + 2, C) -> 9 x (B, H, W, C)."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    for dy in range(3):
        for dx in range(3):
            yield padded[:, dy : dy + height, dx : dx + width]


def _pad(x: jax.Array, value: float = 0.0) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def _patches(x: jax.Array) -> jax.Array:
    """Every position's neighbourhood, zero outside: (B, H, W, C) -> (B, H, W, 9 * C)."""
    return jnp.concatenate(list(_shifted(_pad(x))), axis=-1)


def _add_up(products: jax.Array) -> jax.Array:
    """What every position gives its neighbours, summed: (B, H, W, 9 * C) -> (B, H, W, C)."""
    channels = products.shape[-1] // 9
    windows = enumerate(_shifted(_pad(products)))
    return sum(
        (window[..., i * channels : (i + 1) * channels] for i, window in windows),
        start=jnp.zeros((), products.dtype),
    )


@jax.custom_vjp
def _gather_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Few inputs: collect every position's neighbourhood, then one product."""
    return jnp.matmul(_patches(x), kernel.reshape(-1, kernel.shape[3]), precision=PRECISION)


@jax.custom_vjp
def _scatter_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Few outputs: one product to what every position gives its neighbours, then add those up."""
    inputs, outputs = kernel.shape[2:]
    flat = kernel.transpose(2, 0, 1, 3).reshape(inputs, 9 * outputs)
    return _add_up(jnp.matmul(x, flat, precision=PRECISION))


def _keep(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    return lambda x, kernel: (function(x, kernel), (x, kernel))


def _conv1x1_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> Any:
    x, kernel = kept
    return jnp.matmul(gradient, kernel.T, precision=PRECISION), _outer(x, gradient)


def _gather_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> Any:
    """The transpose of a gather is a scatter with the kernel turned around."""
    x, kernel = kept
    kernel_gradient = _outer(_patches(x), gradient).reshape(kernel.shape)
    return _scatter_conv3x3(gradient, _turned(kernel)), kernel_gradient


def _scatter_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> Any:
    """The transpose of a scatter is a gather, and both gradients are products with its patches."""
    x, kernel = kept
    inputs, outputs = kernel.shape[2:]
    patches = _patches(gradient)  # (B, H, W, 9 * O), of the turned kernel's positions
    flat = _turned(kernel).reshape(9 * outputs, inputs)
    x_gradient = jnp.matmul(patches, flat, precision=PRECISION)
    turned = _outer(x, patches).reshape(inputs, 3, 3, outputs)
    return x_gradient, turned[:, ::-1, ::-1].transpose(1, 2, 0, 3)


def _turned(kernel: jax.Array) -> jax.Array:
    """The kernel of the transposed convolution: (3, 3, I, O) -> (3, 3, O, I)."""
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


def _outer(x: jax.Array, y: jax.Array) -> jax.Array:
    """The sum over positions of outer products: (B, H, W, I), (B, H, W, O) -> (I, O)."""
    x, y = (factor.reshape(-1, factor.shape[-1]) for factor in (x, y))  # (B * H * W, C)
    # XLA copies the first factor transposed, in one thread: let it be the one of fewer channels.
    # The barrier keeps XLA from turning the product round again.
    if x.shape[1] > y.shape[1]:
        return jax.lax.optimization_barrier(jnp.matmul(y.T, x, precision=PRECISION)).T
    return jnp.matmul(x.T, y, precision=PRECISION)


# JAX's own gradient of a kernel is a product that XLA computes the slow way round, by copying a
# transposed operand; and of the shifts, nine arrays padded and added.
conv1x1.defvjp(_keep(conv1x1), _conv1x1_backward)
_gather_conv3x3.defvjp(_keep(_gather_conv3x3), _gather_backward)
_scatter_conv3x3.defvjp(_keep(_scatter_conv3x3), _scatter_backward)


def _edge(kernel: jax.Array, height: int, width: int) -> jax.Array:
    """What padding with ones adds to a zero-padded convolution: (3, 3, I, O) -> (1, H, W, O)."""
    outside = _pad(jnp.zeros((1, height, width, 1), kernel.dtype), 1.0)  # (1, H + 2, W + 2, 1)
    edge_kernel = jnp.sum(kernel, axis=2).reshape(9, -1)  # (9, O)
    return sum(
        (window * weights for window, weights in zip(_shifted(outside), edge_kernel, strict=True)),
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
        kernel = self.kernel[...]
        y = conv3x3(x, kernel) + self.bias[...]
        if self.pad_ones:
            y += _edge(kernel, *x.shape[1:3])
        return y * jnp.exp(3 * self.logs[...])
