"""Gradients of whole models, for tests that compute them in several ways."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from glow_jax.config import ModelConfig
from glow_jax.flow import GradientMemory
from glow_jax.model import Glow, computing, initialise_actnorm

BATCH = 7  # of 4 x 4 positions in the first level


def build(dtype: type, *, noise: float = 0.05, **changes: Any) -> tuple[Glow, jax.Array]:
    """A model with some life in it, and images."""
    settings = {"K": 3, "L": 2, "hidden_channels": 8, "image_shape": (8, 8, 3), "y_classes": 0}
    config = ModelConfig(**{**settings, **changes})
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(-0.5, 0.5, (BATCH, *config.image_shape)), dtype)
    with jax.enable_x64(False):  # P and the signs are the same in both dtypes
        model = jax.jit(lambda key: Glow(config, rngs=nnx.Rngs(key)))(jax.random.key(0))
    graph, *states = nnx.split(model, nnx.Param, ...)
    params, buffers = jax.tree.map(
        lambda leaf: np.asarray(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        states,
    )
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + noise * rng.standard_normal(leaf.shape), dtype), params
    )
    return initialise_actnorm(nnx.merge(graph, params, buffers), x), x


def gradient(model: Glow, x: jax.Array, memory: GradientMemory) -> tuple[jax.Array, nnx.State]:
    """Log-likelihoods in bits/dim, (B,), and the gradient of a weighted sum of them."""
    graph, params, buffers = nnx.split(computing(model, memory=memory), nnx.Param, ...)

    # Images count differently, so that it shows if they change places.
    weights = jnp.arange(1, len(x) + 1, dtype=x.dtype) / len(x)

    def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        log_prob = nnx.merge(graph, params, buffers).log_prob(x)
        bits = -log_prob / (model.config.dimensions * np.log(2))
        return bits @ weights, bits

    gradient, bits = jax.jit(jax.grad(loss, has_aux=True))(params)
    return bits, gradient


def difference(one: nnx.State, other: nnx.State) -> float:
    """Norm of the difference of two whole gradients, relative to the second."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    squares = sum(float(np.sum(np.subtract(a, b) ** 2)) for a, b in pairs)
    return (squares / sum(float(np.sum(np.square(b))) for _, b in pairs)) ** 0.5
