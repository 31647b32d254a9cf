"""JAX against the PyTorch reference: initialisation, gradients and training."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch")

import torch
from parity import Figures, make_step, print_when_done
from parity_models import COVERING, largest, make_images, make_pair, nchw, slow_but

from glow_jax import Glow, ModelConfig, initialise_actnorm
from glow_jax.bridge import mapping, torch_glow
from glow_jax.bridge.from_torch import convert
from glow_jax.config import Config, OptimizerConfig
from glow_jax.layers.convolution import Formulation
from glow_jax.model import computing
from glow_jax.training.optimizer import WEIGHT_DECAY, make_optimizer
from glow_jax.training.step import loss_function

# Compiling takes most of the time, and the bounds hold for unoptimised programs too.

LU, PLAIN, REVERSE, PADDED = (
    "lu-affine-top-conditional-3",
    "plain-additive-top-3",
    "reverse-additive-conditional-3",
    "pad-ones-mixed",
)

FIGURES = Figures("JAX and our PyTorch reference, training")
print_figures = print_when_done(FIGURES)


@pytest.mark.parametrize("name", slow_but([LU], [LU, PLAIN]))
def test_the_same_actnorms_after_initialisation(name: str) -> None:
    config = replace(COVERING[name], actnorm_scale=0.7)
    model, reference = make_pair(config, torch.float32)
    x, y, _ = make_images(config, 64, np.float32)
    reference.initialise(nchw(x))
    ours = mapping.from_glow(initialise_actnorm(model, x, y))
    theirs = reference.state_dict()
    actnorms = [key for key in ours if "actnorm" in key]
    assert len(actnorms) == config.L * config.K * 6
    for key in actnorms:
        difference = largest(ours[key], theirs[key].numpy())
        FIGURES.check("initialised actnorms", difference, 1e-4, key)


def as_config(model: ModelConfig, **optimizer: Any) -> Config:
    return Config(model=model, optimizer=OptimizerConfig(**optimizer))


def labels_or_nothing(y: Any, batch: int) -> Any:
    return np.zeros((batch, 0), np.float32) if y is None else y


@pytest.mark.parametrize("name", slow_but([LU, PLAIN], [LU, PLAIN, REVERSE, PADDED]))
def test_the_same_gradients(name: str) -> None:
    check_gradients(COVERING[name])


def test_the_same_gradients_by_convolutions() -> None:
    check_gradients(COVERING[LU], "convolution")


def check_gradients(model_config: ModelConfig, formulation: Formulation | None = None) -> None:
    config = as_config(model_config)
    model, reference = make_pair(config.model, torch.float32)
    x, y, _ = make_images(config.model, 4, np.float32)
    graph, params, buffers = nnx.split(computing(model, formulation=formulation), nnx.Param, ...)

    def loss_of(params: nnx.State) -> jax.Array:
        glow = nnx.merge(graph, params, buffers)
        return loss_function(glow, jnp.asarray(x), labels_or_nothing(y, 4), config)[0]

    gradient = jax.jit(jax.grad(loss_of))(params)
    ours = mapping.extract(gradient, config.model)
    torch_glow.loss(reference, nchw(x), None if y is None else torch.from_numpy(y)).backward()
    theirs = {key: p.grad.numpy() for key, p in reference.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    whole = math.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in theirs.values()))
    for key in theirs:
        error = np.linalg.norm((ours[key] - theirs[key]).ravel())
        norm = np.linalg.norm(theirs[key].ravel())
        relative = float(error / max(norm, 1e-3 * whole))
        FIGURES.check("gradient of a tensor, relative", relative, 1e-4, key)


class Training:
    """Twelve batches, and twelve training steps on them in PyTorch and in JAX."""

    STEPS, EPOCH = 12, 3

    def __init__(self, config: ModelConfig):
        self.config = as_config(config, lr=1e-3, warmup=2.5, max_grad_clip=0.3, max_grad_norm=0.8)
        model, _ = make_pair(config, torch.float32)
        rng = np.random.default_rng(5)
        shape = (self.STEPS, 16, *config.image_shape)
        pixels, noise = rng.integers(0, 256, shape), rng.uniform(0, 1 / 256, shape)
        self.x = (pixels / 256 - 0.5 + noise).astype(np.float32)
        labels = rng.integers(0, config.y_classes, shape[:2])
        self.y = np.eye(config.y_classes, dtype=np.float32)[labels]
        self.model = model

    def run_torch(self, file: Path | None = None) -> tuple[list[float], dict[str, np.ndarray]]:
        """Losses and final weights; `file` gets the checkpoint of half way."""
        settings = self.config.optimizer
        reference = mapping.build_reference(self.config.model, mapping.from_glow(self.model))
        optimizer = torch.optim.Adamax(
            reference.parameters(), lr=settings.lr, weight_decay=WEIGHT_DECAY
        )
        losses = []
        for i in range(self.STEPS):
            if file is not None and i == self.STEPS // 2:
                content = {"model": reference.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(content, file)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * min(1.0, (i // self.EPOCH + 1) / settings.warmup)
            optimizer.zero_grad()
            y = torch.from_numpy(self.y[i]) if self.config.model.y_condition else None
            loss = torch_glow.loss(reference, nchw(self.x[i]), y)
            loss.backward()
            torch.nn.utils.clip_grad_value_(reference.parameters(), settings.max_grad_clip)
            torch.nn.utils.clip_grad_norm_(reference.parameters(), settings.max_grad_norm)
            optimizer.step()
            losses.append(loss.item())
        weights = {key: tensor.numpy() for key, tensor in reference.state_dict().items()}
        return losses, weights

    def run_jax(
        self, model: Glow, state: Any = None, first: int = 0
    ) -> tuple[list[float], dict[str, np.ndarray]]:
        """Losses and final weights of the steps from `first`."""
        optimizer = make_optimizer(self.config.optimizer, self.EPOCH)
        state = optimizer.init(nnx.state(model, nnx.Param)) if state is None else state
        step = make_step(self.config, optimizer)
        losses = []
        for i in range(first, self.STEPS):
            model, state, loss = step(model, state, self.x[i], self.y[i])
            losses.append(float(loss))
        return losses, mapping.from_glow(model)

    @staticmethod
    def check(name: str, ours: tuple, theirs: tuple) -> None:
        losses = largest(np.array(ours[0]), np.array(theirs[0][-len(ours[0]) :]))
        FIGURES.check(f"{name}: losses", losses, 1e-4)
        assert ours[1].keys() == theirs[1].keys()
        for key in theirs[1]:
            difference = largest(ours[1][key], theirs[1][key])
            FIGURES.check(f"{name}: final parameters", difference, 1e-4, key)


@pytest.mark.parametrize("name", slow_but([LU], [LU, PLAIN]))
def test_the_same_training_and_resumed_from_a_file_of_pytorch(name: str, tmp_path: Path) -> None:
    training = Training(COVERING[name])
    file = tmp_path / "midway.pt"
    theirs = training.run_torch(file)
    assert theirs[0][-1] < theirs[0][0]
    training.check("12 steps", training.run_jax(training.model), theirs)
    model, config, state = convert(file)
    assert config.model == training.config.model
    resumed = training.run_jax(model, state, training.STEPS // 2)
    training.check("resumed at step 6", resumed, theirs)
