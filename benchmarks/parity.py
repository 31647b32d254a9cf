"""Parity with the PyTorch reference on one device, for the benchmark of accelerators."""

import math
import os

import jax
import numpy as np
import torch
from flax import nnx
from speed_torch import DEVICE, allow_tf32

from glow_jax.bridge import mapping, torch_glow
from glow_jax.bridge.proof import Figure, prove
from glow_jax.config import Config
from glow_jax.kernels.products import Precision
from glow_jax.model import Glow, computing, initialise_actnorm
from glow_jax.training.step import loss_function

_BATCH = 16
# A hidden unit that is zero up to rounding may be on in one library and off in the other.
_GRADIENT = 1e-3


class Side:
    """A model far from its initial values, in both libraries."""

    def __init__(self, config: Config):
        """Draw the parameters; the actnorms are then initialised from random images."""
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        self.config = config
        shape = (_BATCH, *config.model.image_shape)
        self.x = np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)
        model = jax.jit(lambda key: Glow(config.model, rngs=nnx.Rngs(key)))(jax.random.key(0))
        self.model = initialise_actnorm(_moved(model), self.x)

    def figures(self, precision: Precision) -> list[Figure]:
        """JAX at a precision beside PyTorch in float32."""
        allow_tf32("highest")
        values = mapping.from_glow(self.model)
        model = computing(self.model, precision=precision)
        figures = prove(model, values, images=_BATCH, device=str(DEVICE))
        ours, theirs = self._jax_gradient(model), self._torch_gradient(values)
        apart = math.sqrt(sum(float(np.sum((ours[key] - theirs[key]) ** 2)) for key in theirs))
        norm = math.sqrt(sum(float(np.sum(theirs[key] ** 2)) for key in theirs))
        return [*figures, Figure("gradient, relative to its norm", apart / norm, _GRADIENT)]

    def _jax_gradient(self, model: Glow) -> dict[str, np.ndarray]:
        graph, params, buffers = nnx.split(model, nnx.Param, ...)

        def loss_of(params: nnx.State, x: jax.Array) -> jax.Array:
            labels = np.zeros((_BATCH, 0), np.float32)
            return loss_function(nnx.merge(graph, params, buffers), x, labels, self.config)[0]

        return mapping.extract(jax.jit(jax.grad(loss_of))(params, self.x), self.config.model)

    def _torch_gradient(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        reference = mapping.build_reference(self.config.model, values).to(DEVICE)
        x = torch.from_numpy(self.x).permute(0, 3, 1, 2).to(DEVICE)
        torch_glow.loss(reference, x).backward()
        named = reference.named_parameters()
        return {key: p.grad.cpu().numpy() for key, p in named if p.grad is not None}


def _moved(model: Glow) -> Glow:
    """The model with noise in every parameter, in kernels by the size of their sums.

    Three times as much makes a model of 96 steps that float32 cannot invert.
    """
    rng = np.random.default_rng(1)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def move(path: tuple[jax.tree_util.KeyEntry, ...], leaf: jax.Array) -> jax.Array:
        terms = (
            math.prod(leaf.shape[-4:-1]) if "kernel" in jax.tree_util.keystr(path) else 100
        )  # 0.01
        return leaf + (rng.standard_normal(leaf.shape) / (10 * math.sqrt(terms))).astype(leaf.dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(move, params), rest)
