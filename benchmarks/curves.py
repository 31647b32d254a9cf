"""Short trainings at each precision, for the benchmark of accelerators."""

import time
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pictures import squares

from glow_jax.config import Config, OptimizerConfig
from glow_jax.devices import keep_compiled_programs
from glow_jax.kernels.products import Precision
from glow_jax.model import Glow, computing, initialise_actnorm
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import make_train_step, new_state, prepare_images


class Curve(NamedTuple):
    """What a training came to.

    Attributes:
        last: mean bits/dim of the last sixth of its steps.
        unseen: bits/dim of squares that it has not seen, measured at the highest precision.
        measured: the same at the precision of the training.
        seconds: of all steps but the first, which compiles.
    """

    last: float
    unseen: float
    measured: float
    seconds: float


class Side:
    """A model, and squares of photographs to train it on."""

    def __init__(self, config: Config, steps: int):
        """Cut the squares and initialise the model."""
        keep_compiled_programs()
        self.config = replace(config, optimizer=OptimizerConfig(warmup=1))
        self.batch = config.training.batch_size
        height, _, channels = config.model.image_shape
        images = squares((steps + 1) * self.batch, height)[..., :channels]
        *self.seen, self.unseen = images.reshape(steps + 1, self.batch, *images.shape[1:])
        self.indices = np.arange(self.batch, dtype=np.uint32)
        self.prepare = partial(prepare_images, config=self.config, flips=False, shifts=False)
        model = jax.jit(lambda key: Glow(config.model, rngs=nnx.Rngs(key)))(jax.random.key(0))
        first = self.prepare(self.seen[0], config.training.seed, 0, self.indices)
        self.model = initialise_actnorm(model, first)

    def train(self, precision: Precision, change: float) -> Curve:
        """Train the model, from parameters moved by `change`."""
        model = computing(self.model, memory="remat", precision=precision)
        graph, params, buffers = nnx.split(model, nnx.Param, ...)
        params = jax.tree.map(lambda leaf: leaf + change, params)
        optimizer = make_optimizer(self.config.optimizer, max(1, len(self.seen) // 3))
        step = make_train_step(optimizer, self.config, prepare=self.prepare)
        step = jax.jit(step, donate_argnums=0)
        # The step gives the state's memory away, and the model is to be trained again.
        model = jax.tree.map(jnp.copy, nnx.merge(graph, params, buffers))
        state = new_state(model, optimizer, self.config)
        labels = np.empty((self.batch, 0), np.float32)
        state, metrics = step(state, self.seen[0], labels, self.indices)
        bits, started = [jax.block_until_ready(metrics).bits_per_dim], time.perf_counter()
        for batch in self.seen[1:]:
            state, metrics = step(state, batch, labels, self.indices)
            bits.append(metrics.bits_per_dim)
        last = float(np.mean(bits[-max(1, len(bits) // 6) :]))
        seconds = time.perf_counter() - started
        x = self.prepare(self.unseen, self.config.training.seed, 0, self.indices)
        exact = computing(state.model, precision="highest")
        unseen, measured = (float(m.bits_per_dim(x).mean()) for m in (exact, state.model))
        return Curve(last, unseen, measured, seconds)
