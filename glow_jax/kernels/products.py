"""Convolutions as matrix products, and a coupling network of them.

XLA's convolutions are slow on a CPU, and their gradients inside a scan are slowest. A product whose
left factor is contracted over its first axis is slow too; a kernel's gradient is such a product. So
the gradient for a CPU is written out here: in every product over many positions, the left factor is
contracted over its last axis. That for an NVIDIA GPU is in `gpu.py`.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Precision = Literal["highest", "high", "default"]
"""How exactly a GPU or TPU multiplies float32, by `jax.lax.Precision`'s names."""

# A float32 likelihood needs float32 products: no TF32 on GPU, no bfloat16 passes on TPU.
PRECISION: Precision = "highest"


class NetworkWeights(NamedTuple):
    """A coupling network's convolutions: 3x3, 1x1 and 3x3, the first two with bias and relu.

    Attributes:
        kernel_in: (3, 3, I, hidden).
        bias_in: (hidden,), or (H, W, hidden) if it differs from place to place.
        kernel_hidden: (hidden, hidden).
        bias_hidden: (hidden,).
        kernel_out: (3, 3, hidden, O).
    """

    kernel_in: jax.Array
    bias_in: jax.Array
    kernel_hidden: jax.Array
    bias_hidden: jax.Array
    kernel_out: jax.Array


def conv3x3_by_products(
    x: jax.Array, kernel: jax.Array, precision: Precision = PRECISION
) -> jax.Array:
    """A 3x3 convolution, zero-padded: (B, H, W, I), (3, 3, I, O) -> (B, H, W, O)."""
    return jnp.matmul(patches(x), kernel.reshape(-1, kernel.shape[3]), precision=precision)


def conv3x3_of_few_outputs(
    x: jax.Array, kernel: jax.Array, precision: Precision = PRECISION
) -> jax.Array:
    """A 3x3 convolution, zero-padded: (B, H, W, I), (3, 3, I, O) -> (B, H, W, O).

    One product computes what every position adds to its neighbours.
    """
    inputs, outputs = kernel.shape[2:]
    flat = kernel.transpose(2, 0, 1, 3).reshape(inputs, 9 * outputs)
    # In bfloat16 a convolution rounds once: so must the sum of the nine parts.
    wide = jnp.promote_types(x.dtype, jnp.float32)
    parts = jnp.matmul(x, flat, precision=precision, preferred_element_type=wide)
    return _add_up(parts).astype(x.dtype)


def first_hidden_layer(precision: Precision, weights: NetworkWeights, x: jax.Array) -> jax.Array:
    """(B, H, W, I) -> (B, H, W, hidden)."""
    return jax.nn.relu(conv3x3_by_products(x, weights.kernel_in, precision) + weights.bias_in)


def network_by_products(
    precision: Precision, weights: NetworkWeights, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The output of a coupling network, and its second hidden layer.

    (B, H, W, I) -> (B, H, W, O), (B, H, W, hidden).
    """
    product = partial(jnp.matmul, precision=precision)
    first = first_hidden_layer(precision, weights, x)
    second = jax.nn.relu(product(first, weights.kernel_hidden) + weights.bias_hidden)
    return conv3x3_of_few_outputs(second, weights.kernel_out, precision), second


def network_gradient_on_cpu(
    precision: Precision,
    weights: NetworkWeights,
    x: jax.Array,
    second: jax.Array,
    y_gradient: jax.Array,
) -> tuple[NetworkWeights, jax.Array]:
    """The gradients of a coupling network's weights and input.

    Args:
        precision: of every product.
        weights: the network's.
        x: its input, (B, H, W, I).
        second: its second hidden layer, (B, H, W, hidden).
        y_gradient: the gradient of its output, (B, H, W, O).
    """
    product = partial(jnp.matmul, precision=precision)
    inputs, hidden = weights.kernel_in.shape[2:]
    outputs = y_gradient.shape[3]

    # The last convolution scatters; its transpose gathers with the kernel rotated. N = B * H * W.
    y_patches = patches(y_gradient).reshape(-1, 9 * outputs)  # (N, 9 * O)
    second = second.reshape(-1, hidden)  # (N, hidden)
    turned_out = transposed(weights.kernel_out).reshape(9 * outputs, hidden)
    second_gradient = _as_written(product(y_patches, turned_out))
    second_gradient = jnp.where(second > 0, second_gradient, 0)  # (N, hidden)
    out_gradient = _as_written(product(_as_written(y_patches.T), second))  # (9 * O, hidden)
    out_gradient = out_gradient.reshape(3, 3, outputs, hidden)

    # Positions come last in the first hidden layer: the next product contracts its left factor so.
    x_patches = patches(x).reshape(-1, 9 * inputs)  # (N, 9 * I)
    flat_in = weights.kernel_in.reshape(9 * inputs, hidden)
    first = _as_written(product(_as_written(flat_in.T), x_patches.T))  # (hidden, N)
    bias_in = weights.bias_in.reshape(-1, hidden).T  # (hidden, P), P = 1 or H * W
    by_place = (hidden, -1, bias_in.shape[1])
    first = jax.nn.relu(first.reshape(by_place) + bias_in[:, None]).reshape(hidden, -1)
    hidden_gradient = _as_written(product(first, second_gradient))  # (hidden, hidden)
    first_gradient = _as_written(product(weights.kernel_hidden, second_gradient.T))
    first_gradient = jnp.where(first > 0, first_gradient, 0)  # (hidden, N)

    # The first convolution gathers; its transpose scatters with the kernel rotated.
    in_gradient = _as_written(product(first_gradient, x_patches)).T  # (9 * I, hidden)
    turned_in = _turned(weights.kernel_in).reshape(9 * inputs, hidden)
    scattered = _as_written(product(turned_in, first_gradient)).T  # (N, 9 * I)
    x_gradient = _add_up(scattered.reshape(*x.shape[:3], 9 * inputs))
    gradient = NetworkWeights(
        kernel_in=in_gradient.reshape(weights.kernel_in.shape),
        bias_in=jnp.sum(first_gradient.reshape(by_place), axis=1).T.reshape(weights.bias_in.shape),
        kernel_hidden=hidden_gradient,
        bias_hidden=jnp.sum(second_gradient, axis=0),
        kernel_out=transposed(out_gradient),
    )
    return gradient, x_gradient


def _as_written(x: jax.Array) -> jax.Array:
    """Return `x` behind a barrier that XLA moves no transpose across.

    Without it, XLA merges a transpose into the product before or after it. The left factor is then
    contracted over its first axis, and a step of the published model takes 3.2 s instead of 2.7 s.
    """
    return jax.lax.optimization_barrier(x)


def shifted(padded: jax.Array) -> Iterator[jax.Array]:
    """The nine windows of a padded image, row by row: (B, H + 2, W + 2, C) -> 9 x (B, H, W, C)."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    for dy in range(3):
        for dx in range(3):
            yield padded[:, dy : dy + height, dx : dx + width]


def pad(x: jax.Array, value: float = 0.0) -> jax.Array:
    """Add a row or column of `value` on each side: (B, H, W, C) -> (B, H + 2, W + 2, C)."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def patches(x: jax.Array) -> jax.Array:
    """Every position's neighbourhood, zero outside: (B, H, W, C) -> (B, H, W, 9 * C)."""
    return jnp.concatenate(list(shifted(pad(x))), axis=-1)


def _add_up(products: jax.Array) -> jax.Array:
    """Sum what every position adds to its neighbours: (B, H, W, 9 * C) -> (B, H, W, C)."""
    channels = products.shape[-1] // 9
    windows = enumerate(shifted(pad(products)))
    return sum(
        (window[..., i * channels : (i + 1) * channels] for i, window in windows),
        start=jnp.zeros((), products.dtype),
    )


def transposed(kernel: jax.Array) -> jax.Array:
    """The kernel of the transposed convolution: (3, 3, I, O) -> (3, 3, O, I)."""
    return _turned(kernel).transpose(0, 1, 3, 2)


def _turned(kernel: jax.Array) -> jax.Array:
    """The kernel rotated by 180 degrees: (3, 3, ...) -> (3, 3, ...)."""
    return kernel[::-1, ::-1]
