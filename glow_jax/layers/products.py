"""Convolutions as matrix products: what a CPU computes fast.

XLA's convolutions are slow on CPU, their gradients inside a scan most of all. So is a product whose
left factor is contracted over its first axis, as that of a kernel's gradient is: hence a coupling
network has a gradient of its own, written such that every product over many positions has the
contracted axis last on the left. It has reverse-mode differentiation alone, no `jax.jvp`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A likelihood in float32 means float32: no TF32 on GPU, no bfloat16 passes on TPU.
PRECISION = jax.lax.Precision.HIGHEST


class NetworkWeights(NamedTuple):
    """A coupling network's convolutions: 3x3, 1x1 and 3x3, the first two with bias and relu.

    Attributes:
        kernel_in: (3, 3, I, hidden).
        bias_in: (hidden,).
        kernel_hidden: (hidden, hidden).
        bias_hidden: (hidden,).
        kernel_out: (3, 3, hidden, O).
    """

    kernel_in: jax.Array
    bias_in: jax.Array
    kernel_hidden: jax.Array
    bias_hidden: jax.Array
    kernel_out: jax.Array


def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution, zero-padded: (B, H, W, I), (3, 3, I, O) -> (B, H, W, O)."""
    return _product(_patches(x), kernel.reshape(-1, kernel.shape[3]))


@jax.custom_vjp
def network(x: jax.Array, weights: NetworkWeights) -> jax.Array:
    """A coupling network: (B, H, W, I) -> (B, H, W, O)."""
    return _network_forward(x, weights)[0]


class _Kept(NamedTuple):
    """What a network's gradient keeps; the first hidden layer is cheaper computed again."""

    x: jax.Array  # (B, H, W, I)
    hidden: jax.Array  # (B, H, W, hidden): the second hidden layer
    weights: NetworkWeights


def _network_forward(x: jax.Array, weights: NetworkWeights) -> tuple[jax.Array, _Kept]:
    h = jax.nn.relu(conv3x3(x, weights.kernel_in) + weights.bias_in)
    h = jax.nn.relu(_product(h, weights.kernel_hidden) + weights.bias_hidden)
    # Few outputs: one product to what every position gives its neighbours, then add those up.
    hidden, outputs = weights.kernel_out.shape[2:]
    flat = weights.kernel_out.transpose(2, 0, 1, 3).reshape(hidden, 9 * outputs)
    return _add_up(_product(h, flat)), _Kept(x, h, weights)


def _network_backward(kept: _Kept, gradient: jax.Array) -> tuple[jax.Array, NetworkWeights]:
    """Gradients of input and weights, from that of the output, (B, H, W, O); N = B * H * W."""
    weights, (inputs, hidden) = kept.weights, kept.weights.kernel_in.shape[2:]
    outputs = gradient.shape[3]

    # Through the last convolution, whose transpose gathers with the kernel turned around.
    around = _patches(gradient).reshape(-1, 9 * outputs)  # (N, 9 * O)
    h = kept.hidden.reshape(-1, hidden)  # (N, hidden)
    turned_out = _turned(weights.kernel_out).transpose(0, 1, 3, 2).reshape(9 * outputs, hidden)
    h_gradient = jnp.where(h > 0, _fixed(_product(around, turned_out)), 0)  # (N, hidden)
    kernel_out = _fixed(_product(_fixed(around.T), h))  # (9 * O, hidden)
    kernel_out = _turned(kernel_out.reshape(3, 3, outputs, hidden)).transpose(0, 1, 3, 2)

    # The first hidden layer, computed with positions last: as the left factor of the next product.
    patches = _patches(kept.x).reshape(-1, 9 * inputs)  # (N, 9 * I)
    flat_in = weights.kernel_in.reshape(9 * inputs, hidden)
    first = _fixed(_product(_fixed(flat_in.T), patches.T))
    first = jax.nn.relu(first + weights.bias_in[:, None])  # (hidden, N)
    kernel_hidden = _fixed(_product(first, h_gradient))
    first_gradient = _fixed(_product(weights.kernel_hidden, h_gradient.T))
    first_gradient = jnp.where(first > 0, first_gradient, 0)  # (hidden, N)

    # Through the first convolution, whose transpose scatters with the kernel turned around.
    kernel_in = _fixed(_product(first_gradient, patches)).T.reshape(weights.kernel_in.shape)
    turned_in = _turned(weights.kernel_in).reshape(9 * inputs, hidden)
    scattered = _fixed(_product(turned_in, first_gradient)).T  # (N, 9 * I)
    x_gradient = _add_up(scattered.reshape(*kept.x.shape[:3], 9 * inputs))
    return x_gradient, NetworkWeights(
        kernel_in=kernel_in,
        bias_in=jnp.sum(first_gradient, axis=1),
        kernel_hidden=kernel_hidden,
        bias_hidden=jnp.sum(h_gradient, axis=0),
        kernel_out=kernel_out,
    )


network.defvjp(_network_forward, _network_backward)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=PRECISION)


def _fixed(x: jax.Array) -> jax.Array:
    """`x`, but XLA must not write a product or a transpose of it in another way round."""
    return jax.lax.optimization_barrier(x)


def shifted(padded: jax.Array) -> Iterator[jax.Array]:
    """The nine windows of a padded image, row by row: (B, H + 2, W + 2, C) -> 9 x (B, H, W, C)."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    for dy in range(3):
        for dx in range(3):
            yield padded[:, dy : dy + height, dx : dx + width]


def pad(x: jax.Array, value: float = 0.0) -> jax.Array:
    """One row or column of `value` on each side: (B, H, W, C) -> (B, H + 2, W + 2, C)."""
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def _patches(x: jax.Array) -> jax.Array:
    """Every position's neighbourhood, zero outside: (B, H, W, C) -> (B, H, W, 9 * C)."""
    return jnp.concatenate(list(shifted(pad(x))), axis=-1)


def _add_up(products: jax.Array) -> jax.Array:
    """What every position gives its neighbours, summed: (B, H, W, 9 * C) -> (B, H, W, C)."""
    channels = products.shape[-1] // 9
    windows = enumerate(shifted(pad(products)))
    return sum(
        (window[..., i * channels : (i + 1) * channels] for i, window in windows),
        start=jnp.zeros((), products.dtype),
    )


def _turned(kernel: jax.Array) -> jax.Array:
    """The kernel turned by 180 degrees: (3, 3, ...) -> (3, 3, ...)."""
    return kernel[::-1, ::-1]
