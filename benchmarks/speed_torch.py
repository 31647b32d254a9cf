"""The tasks of the speed benchmark in PyTorch: the reference, layer by layer, and compiled."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from layer_by_layer import compute_layer_by_layer
from machine import threads

from glow_jax.bridge import mapping, torch_glow
from glow_jax.bridge.torch_layers import Step
from glow_jax.config import Config
from glow_jax.kernels.products import Precision
from glow_jax.model import Glow
from glow_jax.training.optimizer import WEIGHT_DECAY

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# torch.compile takes seconds for each step of a model: up to here it gets the whole.
_STEPS_COMPILED_AS_ONE = 16


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes, including what the device still has to do."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def allow_tf32(precision: Precision) -> None:
    """Let cuDNN round to TF32, as is PyTorch's default, where JAX's precision allows it."""
    torch.backends.cudnn.allow_tf32 = precision != "highest"


class Side:
    """Models with the same parameters, and their training."""

    def __init__(
        self, config: Config, names: tuple[str, ...], leaves: list[np.ndarray], x: np.ndarray
    ):
        """Build the models from the arrays of a JAX model.

        Args:
            config: the architecture and the learning rate.
            names: which ways to compute it: "torch", "torch_layers" or "torch_compiled".
            leaves: the JAX model's.
            x: the batch, (B, H, W, C).
        """
        torch.set_num_threads(threads())
        jax.config.update("jax_platforms", "cpu")  # the device's memory is the other process's
        model = nnx.eval_shape(lambda: Glow(config.model, rngs=nnx.Rngs(0)))
        values = mapping.from_glow(jax.tree.unflatten(jax.tree.structure(model), leaves))
        self.models, self.optimizers = {}, {}
        for name in names:
            reference = mapping.build_reference(config.model, values)
            if name == "torch_layers":
                reference = compute_layer_by_layer(reference)
            elif name == "torch_compiled":
                compile_model(reference)
            self.models[name] = reference.to(DEVICE)
            self.optimizers[name] = torch.optim.Adamax(
                reference.parameters(), lr=config.optimizer.lr, weight_decay=WEIGHT_DECAY
            )
        self.x = torch.from_numpy(np.array(x.transpose(0, 3, 1, 2))).to(DEVICE)
        shapes = config.model.latent_shapes
        self.noise = [torch.randn(len(x), c, h, w, device=DEVICE) for h, w, c in shapes]

    def peak(self, precision: Precision, size: int) -> float:
        """Floating-point operations a second of a product of two square float32 matrices."""
        left, right = torch.randn(2, size, size, device=DEVICE)
        torch.backends.cuda.matmul.allow_tf32 = precision != "highest"
        times = [seconds(lambda: torch.mm(left, right)) for _ in range(4)]
        torch.backends.cuda.matmul.allow_tf32 = False  # PyTorch's default
        return 2 * size**3 / min(times)

    def warm_up(self, tasks: list[str]) -> None:
        """Run every task, which compiles what is compiled."""
        for name in self.models:
            for task in tasks:
                self.run(name, "highest", task, 0)

    def run(self, name: str, precision: Precision, task: str, times: int) -> float:
        """Seconds that a model's task takes, run so many times after once."""
        allow_tf32(precision)
        once = partial(getattr(self, f"_{task}"), name)
        try:
            once()
            return sum(seconds(once) for _ in range(times))
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # the device's memory is another's now

    def _training(self, name: str) -> None:
        self.optimizers[name].zero_grad()
        torch_glow.loss(self.models[name], self.x).backward()
        self.optimizers[name].step()

    @torch.no_grad()
    def _likelihood(self, name: str) -> None:
        self.models[name](self.x)

    @torch.no_grad()
    def _sampling(self, name: str) -> None:
        self.models[name].decode_noise(self.noise)


def compile_model(model: torch_glow.Glow) -> None:
    """Have `torch.compile` compile a model in place: a small one as a whole, others step by step.

    Step by step is what PyTorch's guide to regional compilation advises for repeated layers.
    """
    # Batches and levels differ in shape, and PyTorch would give up compiling at the eighth.
    torch._dynamo.config.recompile_limit = 64  # pyright: ignore[reportAttributeAccessIssue]
    steps = [module for module in model.modules() if isinstance(module, Step)]
    if len(steps) <= _STEPS_COMPILED_AS_ONE:
        model.compile(dynamic=False)
        model.decode_noise = torch.compile(model.decode_noise, dynamic=False)
        return
    for step in steps:
        step.compile(dynamic=False)
        step.inverse = torch.compile(step.inverse, dynamic=False)
