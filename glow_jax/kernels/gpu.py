"""The gradient of a coupling network on an NVIDIA GPU: as matrix products too.

cuDNN's convolutions between few and many channels took most of a training step in a profile of the
published model, and the products take less. Transposes are left to XLA, which merges them into the
products; on a CPU that is what `products.py` must prevent.
"""

from functools import partial

import jax
import jax.numpy as jnp

from glow_jax.kernels.products import (
    NetworkWeights,
    Precision,
    conv3x3_by_products,
    conv3x3_of_few_outputs,
    first_hidden_layer,
    patches,
    transposed,
)


def network_gradient_on_gpu(
    precision: Precision,
    weights: NetworkWeights,
    x: jax.Array,
    second: jax.Array,
    y_gradient: jax.Array,
) -> tuple[NetworkWeights, jax.Array]:
    """The gradients of a coupling network's weights and input, as `network_gradient_on_cpu`'s.

    (B, H, W, I), (B, H, W, hidden), (B, H, W, O) -> the weights' shapes, (B, H, W, I).
    """
    product = partial(jnp.matmul, precision=precision)
    second_gradient = conv3x3_by_products(y_gradient, transposed(weights.kernel_out), precision)
    second_gradient = jnp.where(second > 0, second_gradient, 0)  # (B, H, W, hidden)
    first = first_hidden_layer(precision, weights, x)  # (B, H, W, hidden)
    first_gradient = product(second_gradient, weights.kernel_hidden.T)
    first_gradient = jnp.where(first > 0, first_gradient, 0)  # (B, H, W, hidden)
    # Behind a barrier: XLA would compute these sums anew inside the sums over all positions that
    # the actnorm before needs, which was slower in a profile.
    x_gradient = jax.lax.optimization_barrier(
        conv3x3_of_few_outputs(first_gradient, transposed(weights.kernel_in), precision)
    )

    def summed(left: jax.Array, right: jax.Array) -> jax.Array:
        """Sum products over all positions: (B, H, W, I), (B, H, W, O) -> (I, O)."""
        rows = left.reshape(-1, left.shape[-1])  # (B * H * W, I)
        return product(rows.T, right.reshape(-1, right.shape[-1]))

    of_place = tuple(range(first.ndim - weights.bias_in.ndim))
    in_gradient = summed(patches(x), first_gradient)  # (9 * I, hidden)
    out_gradient = summed(patches(y_gradient), second)  # (9 * O, hidden)
    gradient = NetworkWeights(
        kernel_in=in_gradient.reshape(weights.kernel_in.shape),
        bias_in=jnp.sum(first_gradient, axis=of_place),
        kernel_hidden=summed(first, second_gradient),
        bias_hidden=jnp.sum(second_gradient, axis=(0, 1, 2)),
        kernel_out=transposed(out_gradient.reshape(3, 3, -1, second.shape[-1])),
    )
    return gradient, x_gradient
