"""The tasks of the speed benchmark in JAX."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from glow_jax.config import Config
from glow_jax.devices import Devices, keep_compiled_programs, mean_over_devices
from glow_jax.flow import GradientMemory
from glow_jax.kernels.products import Precision
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

    def __init__(self, config: Config, memory: GradientMemory, precisions: tuple[Precision, ...]):
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
        model = initialise_actnorm(model, self.x)
        self.models: dict[Precision, Glow] = {
            precision: computing(model, memory=memory, precision=precision)
            for precision in precisions
        }
        optimizer = make_optimizer(config.optimizer, 1)
        devices = Devices(1)
        step = make_train_step(optimizer, config, prepare=prepare, mean=mean_over_devices)
        # One each: a step that is compiled ahead knows programs by the shapes of batches alone.
        self._steps = {precision: devices.training_step(step) for precision in precisions}
        self.states = {
            precision: devices.replicate(new_state(model, optimizer, config))
            for precision, model in self.models.items()
        }

    def model_and_input(self) -> tuple[list[np.ndarray], np.ndarray]:
        """The model's arrays, and the batch, (B, H, W, C)."""
        model = next(iter(self.models.values()))
        return [np.asarray(leaf) for leaf in jax.tree.leaves(model)], np.asarray(self.x)

    def peak(self, precision: Precision, size: int) -> float:
        """Floating-point operations a second of a product of two square float32 matrices."""
        left, right = jax.random.normal(jax.random.key(0), (2, size, size))
        times = [
            seconds(lambda: _product(precision)(left, right).block_until_ready()) for _ in range(4)
        ]
        return 2 * size**3 / min(times)

    def warm_up(self, tasks: list[str]) -> None:
        """Compile every program, several at once, and run it."""
        with ThreadPoolExecutor() as pool:
            begun = [
                pool.submit(self.run, "jax", precision, task, 0)
                for precision, task in product(self.models, tasks)
            ]
        for call in begun:
            call.result()

    def run(self, _: str, precision: Precision, task: str, times: int) -> float:
        """Seconds that a task takes, run so many times after once, as the caches were another's."""
        once = partial(getattr(self, f"_{task}"), precision)
        once()
        return sum(seconds(once) for _ in range(times))

    def compile_by_calling(self, precision: Precision, task: str) -> float:
        """Seconds that the first call of a task takes longer than the second."""
        once = partial(getattr(self, f"_{task}"), precision)
        return seconds(once) - seconds(once)

    def compile_training(self, precision: Precision) -> tuple[float, int]:
        """Seconds to compile the training step, and the bytes of temporary memory it takes."""
        started = time.perf_counter()
        compiled = self._steps[precision].compile(self.states[precision], *self._batch())
        taken = time.perf_counter() - started
        analysis = compiled.memory_analysis()
        assert analysis is not None, "this backend does not analyse memory"
        return taken, analysis.temp_size_in_bytes

    def most_bytes(self) -> int | None:
        """The most memory of the device that this process has used; None where none is counted."""
        found = jax.devices()[0].memory_stats()
        return None if found is None else found["peak_bytes_in_use"]

    def _batch(self) -> tuple[np.ndarray, ...]:
        labels = np.empty((self.batch_size, 0), np.float32)
        return np.zeros(1, np.int32), self.images, labels, self.indices

    def _training(self, precision: Precision) -> None:
        step = self._steps[precision]
        self.states[precision], *rest = step(self.states[precision], *self._batch())
        jax.block_until_ready((self.states[precision], rest))

    def _likelihood(self, precision: Precision) -> None:
        self.models[precision].log_prob(self.x).block_until_ready()

    def _sampling(self, precision: Precision) -> None:
        sample = self.models[precision].sample(jax.random.key(0), self.batch_size)
        sample.block_until_ready()


@cache
def _product(precision: Precision) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return jax.jit(partial(jnp.matmul, precision=precision))
