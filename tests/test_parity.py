"""JAX against the PyTorch reference: every kind of model, every number, and training."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

pytest.importorskip("torch")

import torch
from parity import Figures

from glow_jax import Glow, ModelConfig, bits_per_dim, initialise_actnorm
from glow_jax.bridge import mapping, torch_glow
from glow_jax.bridge.from_torch import convert
from glow_jax.bridge.proof import log_det
from glow_jax.config import Config, OptimizerConfig
from glow_jax.layers.convolution import formulation
from glow_jax.model import put_together, take_apart
from glow_jax.training.optimizer import WEIGHT_DECAY, make_optimizer
from glow_jax.training.step import loss_function

FIGURES = Figures("JAX and our PyTorch reference")


@pytest.fixture(scope="module", autouse=True)
def print_figures() -> Iterator[None]:
    yield
    FIGURES.print()


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """Half the time to compile; float64 has digits to spare for whatever order of operations."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


MIXINGS = ("lu", "plain", "reverse", "shuffle")


def make_config(
    mixing: str, coupling: Any, learn_top: bool, conditional: bool, channels: int, **more: Any
) -> ModelConfig:
    return ModelConfig(
        K=2,
        L=2,
        hidden_channels=6,
        flow_permutation="invconv" if mixing in ("lu", "plain") else mixing,  # pyright: ignore
        flow_coupling=coupling,
        LU_decomposed=mixing != "plain",
        learn_top=learn_top,
        y_condition=conditional,
        y_classes=3 if conditional else ModelConfig.y_classes,
        image_shape=(4, 8, channels),
        **more,
    )


# Each pair of values of any two of the five settings occurs in one of these.
COVERING = {
    "lu-affine-top-conditional-3": make_config("lu", "affine", True, True, 3),
    "lu-additive-1": make_config("lu", "additive", False, False, 1),
    "plain-affine-conditional-1": make_config("plain", "affine", False, True, 1),
    "plain-additive-top-3": make_config("plain", "additive", True, False, 3),
    "reverse-affine-top-1": make_config("reverse", "affine", True, False, 1),
    "reverse-additive-conditional-3": make_config("reverse", "additive", False, True, 3),
    "shuffle-affine-3": make_config("shuffle", "affine", False, False, 3),
    "shuffle-additive-top-conditional-1": make_config("shuffle", "additive", True, True, 1),
    "pad-ones-mixed": make_config("lu", "affine", True, False, 3, pad_ones=True, plain_levels=(0,)),
}
PRODUCT = list(
    itertools.product(MIXINGS, ("affine", "additive"), (True, False), (True, False), (1, 3))
)
FLOAT32 = (
    "lu-affine-top-conditional-3",
    "plain-additive-top-3",
    "reverse-additive-conditional-3",
    "shuffle-affine-3",
    "pad-ones-mixed",
)
TRAINED = ("lu-affine-top-conditional-3", "plain-additive-top-3")


def make_pair(config: ModelConfig, dtype: torch.dtype) -> tuple[Glow, torch_glow.Glow]:
    """A model far from its initial values, in JAX and in PyTorch."""
    torch.manual_seed(1)
    reference = mapping.build_reference(config).to(dtype)
    height, width, channels = config.image_shape
    with torch.no_grad():
        # Initialised, and the wide layers moved less: chance would make models that no arithmetic
        # can invert.
        reference.initialise(torch.rand(64, channels, height, width, dtype=dtype) - 0.5)
        for key, parameter in reference.named_parameters():
            size = 0.03 if parameter.ndim > 1 and "conv" in key else 0.1
            parameter.add_(size * torch.randn_like(parameter))
    return mapping.to_glow(values_of(reference), config), reference


def values_of(reference: torch_glow.Glow) -> dict[str, np.ndarray]:
    """The state dict as arrays, with the orders of shuffles, which it leaves out."""
    tensors = {**reference.state_dict(), **dict(reference.named_buffers())}
    return {key: tensor.detach().numpy().copy() for key, tensor in tensors.items()}


def make_images(config: ModelConfig, batch: int, dtype: Any) -> tuple[np.ndarray, Any, list]:
    """Images, labels if the model is conditional, and unit-normal draws."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-0.5, 0.5, (batch, *config.image_shape)).astype(dtype)
    y = np.eye(config.y_classes, dtype=dtype)[rng.integers(0, config.y_classes, batch)]
    noise = [rng.standard_normal((batch, *shape)).astype(dtype) for shape in config.latent_shapes]
    return x, y if config.y_condition else None, noise


@jax.jit
def run_jax(model: Glow, x: jax.Array, y: Any, noise: list) -> dict[str, Any]:
    code = model.encode(x, y)
    return {
        "latents": list(code.latents),
        "noise": list(code.noise),
        "log_prob": code.log_prob,
        "level_log_prob": code.level_log_prob,
        "log_det": log_det(model, x),
        "bits_per_dim": bits_per_dim(code.log_prob, model.config.image_shape),
        "logits": None if y is None else model.classify(code.latents),
        **decode_both(model, noise, code.noise, y),
    }


def decode_both(model: Glow, draws: list, noise: Any, y: Any) -> dict[str, Any]:
    """A sample from `draws`, and the images that have `noise`: one program for both."""
    both = tuple(jnp.concatenate(pair) for pair in zip(draws, noise, strict=True))
    images = model.decode_noise(both, None if y is None else jnp.concatenate([y, y]))
    sample, decoded = jnp.split(images, 2)
    return {"sample": sample, "decoded": decoded}


@torch.no_grad()
def run_torch(model: torch_glow.Glow, x: np.ndarray, y: Any, noise: list) -> dict[str, Any]:
    labels = None if y is None else torch.from_numpy(y)
    code = model.encode(nchw(x), labels)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    numbers = {
        "latents": [nhwc(latent) for latent in code.latents],
        "noise": [nhwc(part) for part in code.noise],
        "log_prob": code.log_prob,
        "level_log_prob": code.level_log_prob,
        "log_det": code.log_det,
        "bits_per_dim": torch_glow.bits_per_dim(code.log_prob, shape),
        "logits": None if labels is None else model.classify(code.latents[-1]),
        "decoded": nhwc(model.decode(code.latents, labels)),
        "sample": nhwc(model.decode_noise([nchw(part) for part in noise], labels)),
    }
    return jax.tree.map(lambda a: a if isinstance(a, np.ndarray) else a.numpy(), numbers)


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x)).movedim(-1, -3)


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.movedim(-3, -1).numpy()


def largest(a: Any, b: Any) -> float:
    differences = jax.tree.map(
        lambda a, b: np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))), a, b
    )
    return float(max(jax.tree.leaves(differences)))


def check_float64(config: ModelConfig) -> None:
    model, reference = make_pair(config, torch.float64)
    x, y, noise = make_images(config, 3, np.float64)
    ours, theirs = run_jax(model, x, y, noise), run_torch(reference, x, y, noise)
    assert ours["log_prob"].dtype == jnp.float64
    for name in ours:
        if ours[name] is not None:
            difference = largest(ours[name], theirs[name])
            FIGURES.check("float64: every number", difference, 1e-9, name)
    FIGURES.check("float64: encode -> decode", largest(ours["decoded"], x), 1e-9)


@pytest.mark.parametrize("name", COVERING)
@pytest.mark.usefixtures("x64", "quick_compilation")
def test_the_same_numbers_in_float64(name: str) -> None:
    check_float64(COVERING[name])


@pytest.mark.slow
@pytest.mark.parametrize("settings", PRODUCT, ids=lambda s: "-".join(map(str, s)))
@pytest.mark.usefixtures("x64", "quick_compilation")
def test_the_same_numbers_for_every_mix_in_float64(settings: tuple) -> None:
    check_float64(make_config(*settings))


def check_float32(config: ModelConfig) -> None:
    model, reference = make_pair(config, torch.float32)
    x, y, noise = make_images(config, 3, np.float32)
    ours, theirs = run_jax(model, x, y, noise), run_torch(reference, x, y, noise)
    wide = [part.astype(np.float64) for part in noise]
    labels = None if y is None else y.astype(np.float64)
    exact = run_torch(reference.double(), x.astype(np.float64), labels, wide)
    assert largest(theirs["decoded"], x) <= 1e-4

    bits = largest(ours["bits_per_dim"], theirs["bits_per_dim"])
    FIGURES.check("float32: bits/dim", bits, 1e-5)
    nats = config.dimensions * math.log(2)
    log_dets = largest(ours["log_det"] / nats, theirs["log_det"] / nats)
    FIGURES.check("float32: log-determinant / (D log 2)", log_dets, 1e-5)
    for name in ("latents", "noise", "logits", "sample"):
        if ours[name] is not None:
            bound = max(1e-4, 4 * largest(theirs[name], exact[name]))
            FIGURES.check(f"float32: {name}", largest(ours[name], theirs[name]), bound)
    bound = max(1e-4, 4 * largest(theirs["decoded"], x))
    FIGURES.check("float32: encode -> decode", largest(ours["decoded"], x), bound)


@pytest.mark.parametrize("name", FLOAT32)
def test_the_same_numbers_in_float32(name: str) -> None:
    check_float32(COVERING[name])


def test_the_same_numbers_by_convolutions() -> None:
    with formulation("convolution"):
        check_float32(COVERING["lu-affine-top-conditional-3"])


@pytest.mark.slow
@pytest.mark.parametrize("settings", PRODUCT, ids=lambda s: "-".join(map(str, s)))
def test_the_same_numbers_for_every_mix_in_float32(settings: tuple) -> None:
    check_float32(make_config(*settings))


@pytest.mark.parametrize("name", ["lu-affine-top-conditional-3", "plain-additive-top-3"])
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


@pytest.mark.parametrize("name", [*TRAINED, "reverse-additive-conditional-3", "pad-ones-mixed"])
def test_the_same_gradients(name: str) -> None:
    check_gradients(COVERING[name])


def test_the_same_gradients_by_convolutions() -> None:
    with formulation("convolution"):
        check_gradients(COVERING["lu-affine-top-conditional-3"])


def check_gradients(model_config: ModelConfig) -> None:
    config = as_config(model_config)
    model, reference = make_pair(config.model, torch.float32)
    x, y, _ = make_images(config.model, 4, np.float32)
    graph, params, buffers = take_apart(model)

    def loss_of(params: nnx.State) -> jax.Array:
        glow = put_together(graph, params, buffers)
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
    """Twelve batches, and the same twelve steps in PyTorch and in JAX."""

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
        """Losses and final weights; half way, all is saved in `file`."""
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
        graph, params, buffers = take_apart(model)
        state = optimizer.init(params) if state is None else state

        @jax.jit
        def step(params: nnx.State, state: Any, x: jax.Array, y: jax.Array):
            def loss_of(params: nnx.State) -> jax.Array:
                return loss_function(put_together(graph, params, buffers), x, y, self.config)[0]

            loss, gradient = jax.value_and_grad(loss_of)(params)
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, loss

        losses = []
        for i in range(first, self.STEPS):
            params, state, loss = step(params, state, self.x[i], self.y[i])
            losses.append(float(loss))
        return losses, mapping.from_glow(put_together(graph, params, buffers))

    @staticmethod
    def check(name: str, ours: tuple, theirs: tuple) -> None:
        losses = largest(np.array(ours[0]), np.array(theirs[0][-len(ours[0]) :]))
        FIGURES.check(f"{name}: losses", losses, 1e-4)
        assert ours[1].keys() == theirs[1].keys()
        for key in theirs[1]:
            difference = largest(ours[1][key], theirs[1][key])
            FIGURES.check(f"{name}: final parameters", difference, 1e-4, key)


@pytest.mark.parametrize("name", TRAINED)
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
