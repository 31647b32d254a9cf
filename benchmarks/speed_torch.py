"""The tasks of the speed benchmark in PyTorch: the reference, and the same layer by layer."""

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
from glow_jax.config import Config
from glow_jax.model import Glow
from glow_jax.training.optimizer import WEIGHT_DECAY

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes, including what the device still has to do."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


class Side:
    """Two models with the same parameters, and their training."""

    def __init__(self, config: Config, leaves: list[np.ndarray], x: np.ndarray):
        """Build the models from the arrays of a JAX model; x: the batch, (B, H, W, C)."""
        torch.set_num_threads(threads())
        torch.backends.cudnn.allow_tf32 = False  # nor does JAX round to TF32
        jax.config.update("jax_platforms", "cpu")  # the device's memory is the other process's
        model = nnx.eval_shape(lambda: Glow(config.model, rngs=nnx.Rngs(0)))
        values = mapping.from_glow(jax.tree.unflatten(jax.tree.structure(model), leaves))
        self.models, self.optimizers = {}, {}
        for name in ("torch", "torch_layers"):
            reference = mapping.build_reference(config.model, values)
            if name == "torch_layers":
                reference = compute_layer_by_layer(reference)
            self.models[name] = reference.to(DEVICE)
            self.optimizers[name] = torch.optim.Adamax(
                reference.parameters(), lr=config.optimizer.lr, weight_decay=WEIGHT_DECAY
            )
        self.x = torch.from_numpy(np.array(x.transpose(0, 3, 1, 2))).to(DEVICE)
        shapes = config.model.latent_shapes
        self.noise = [torch.randn(len(x), c, h, w, device=DEVICE) for h, w, c in shapes]

    def peak(self) -> float:
        """Floating-point operations a second of a float32 matrix product."""
        size = 2048
        left, right = torch.randn(2, size, size, device=DEVICE)
        return 2 * size**3 / min(seconds(lambda: torch.mm(left, right)) for _ in range(4))

    def run(self, name: str, task: str, times: int) -> float:
        """Seconds that one of the models' tasks takes, run so many times."""
        once = partial(getattr(self, f"_{task}"), name)
        return sum(seconds(once) for _ in range(times))

    def _training(self, name: str) -> None:
        self.optimizers[name].zero_grad()
        torch_glow.loss(self.models[name], self.x).backward()
        self.optimizers[name].step()

    @torch.no_grad()
    def _likelihood(self, name: str) -> None:
        self.models[name].encode(self.x)

    @torch.no_grad()
    def _sampling(self, name: str) -> None:
        self.models[name].decode_noise(self.noise)
