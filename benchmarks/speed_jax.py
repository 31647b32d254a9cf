"""The tasks of the speed benchmark in JAX."""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np
from flax import nnx

from glow_jax.config import Config
from glow_jax.devices import Devices, keep_compiled_programs, mean_over_devices
from glow_jax.flow import GradientMemory
from glow_jax.model import Glow, computing, initialise_actnorm
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import make_train_step, new_state, prepare_images


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


class Side:
    """A model and its training."""

    def __init__(self, config: Config, memory: GradientMemory):
        """Build the model, initialised from random images, and compile nothing more yet."""
        # On a GPU, leave memory to the other process; read when the first computation starts.
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        keep_compiled_programs()
        self.batch_size = config.training.batch_size
        shape = (self.batch_size, *config.model.image_shape)
        self.images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self.indices = np.arange(self.batch_size, dtype=np.uint32)
        prepare = partial(prepare_images, config=config, flips=False, shifts=False)
        self.x = prepare(self.images, config.training.seed, 0, self.indices)
        model = jax.jit(lambda key: Glow(config.model, rngs=nnx.Rngs(key)))(jax.random.key(0))
        self.model = computing(initialise_actnorm(model, self.x), memory=memory)
        optimizer = make_optimizer(config.optimizer, 1)
        devices = Devices(1)
        step = make_train_step(optimizer, config, prepare=prepare, mean=mean_over_devices)
        self._step = devices.training_step(step)
        self.state = devices.replicate(new_state(self.model, optimizer, config))

    def machine(self) -> str:
        """What this runs on."""
        return machine.machine()

    def model_and_input(self) -> tuple[list[np.ndarray], np.ndarray]:
        """The model's arrays, and the batch, (B, H, W, C)."""
        return [np.asarray(leaf) for leaf in jax.tree.leaves(self.model)], np.asarray(self.x)

    def peak(self) -> float:
        """Floating-point operations a second of a float32 matrix product."""
        size = 2048
        left, right = jax.random.normal(jax.random.key(0), (2, size, size))
        product = jax.jit(partial(jnp.matmul, precision="highest"))
        times = [seconds(lambda: product(left, right).block_until_ready()) for _ in range(4)]
        return 2 * size**3 / min(times)

    def run(self, _: str, task: str, times: int) -> float:
        """Seconds that a task takes, run so many times."""
        return sum(seconds(getattr(self, f"_{task}")) for _ in range(times))

    def _training(self) -> None:
        labels = np.empty((self.batch_size, 0), np.float32)
        batch = (self.images, labels, self.indices)
        self.state, metrics, _ = self._step(self.state, np.zeros(1, np.int32), *batch)
        jax.block_until_ready((self.state, metrics))

    def _likelihood(self) -> None:
        self.model.log_prob(self.x).block_until_ready()

    def _sampling(self) -> None:
        self.model.sample(jax.random.key(0), self.batch_size).block_until_ready()
