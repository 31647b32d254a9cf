"""Pairs of models, in JAX and in PyTorch, and all the numbers that the two can be compared by."""

import itertools
from collections.abc import Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from glow_jax import Glow, ModelConfig, bits_per_dim
from glow_jax.bridge import mapping, torch_glow
from glow_jax.bridge.proof import log_det

# Tensors as small as these are faster on one thread.
torch.set_num_threads(1)

Mixing = Literal["lu", "plain", "reverse", "shuffle"]
MIXINGS: tuple[Mixing, ...] = ("lu", "plain", "reverse", "shuffle")


def make_config(
    mixing: Mixing,
    coupling: Literal["affine", "additive"],
    learn_top: bool,
    conditional: bool,
    channels: int,
    **more: Any,
) -> ModelConfig:
    return ModelConfig(
        K=2,
        L=2,
        hidden_channels=6,
        flow_permutation=mixing if mixing in ("reverse", "shuffle") else "invconv",
        flow_coupling=coupling,
        LU_decomposed=mixing != "plain",
        learn_top=learn_top,
        y_condition=conditional,
        y_classes=3 if conditional else ModelConfig.y_classes,
        image_shape=(4, 8, channels),
        **more,
    )


# Every pair of values of two settings occurs in one of these.
COVERING = {
    "lu-affine-top-conditional-3": make_config("lu", "affine", True, True, 3),
    "lu-additive-1": make_config("lu", "additive", False, False, 1),
    "plain-affine-conditional-1": make_config("plain", "affine", False, True, 1),
    "plain-additive-top-3": make_config("plain", "additive", True, False, 3),
    "reverse-affine-top-1": make_config("reverse", "affine", True, False, 1),
    "reverse-additive-conditional-3": make_config("reverse", "additive", False, True, 3),
    "shuffle-affine-3": make_config("shuffle", "affine", False, False, 3),
    "shuffle-additive-top-conditional-1": make_config("shuffle", "additive", True, True, 1),
    "pad-ones-mixed": make_config(
        "lu", "affine", True, False, 3, padding="ones", plain_levels=(0,)
    ),
    "edge-bias-conditional": make_config(
        *("plain", "affine", True, True, 3),
        padding="edge_bias",
        actnorm_logs_factor=3.0,
        classifier=False,
    ),
}
# The kinds whose parts the other kinds have too: the everyday suite compares these in float32, and
# the others in float64.
FLOAT32 = ("lu-affine-top-conditional-3", "plain-additive-top-3")
PRODUCT = list(
    itertools.product(MIXINGS, ("affine", "additive"), (True, False), (True, False), (1, 3))
)


def make_pair(config: ModelConfig, dtype: torch.dtype) -> tuple[Glow, torch_glow.Glow]:
    """A model far from its initial values, in JAX and in PyTorch."""
    torch.manual_seed(1)
    reference = mapping.build_reference(config).to(dtype)
    height, width, channels = config.image_shape
    with torch.no_grad():
        # Actnorms are initialised and wide layers are moved less: larger noise makes models that no
        # floating-point arithmetic can invert.
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
        "logits": None if model.classifier is None else model.classify(code.latents),
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
        "logits": None if model.project_class is None else model.classify(code.latents[-1]),
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


def slow_but(everyday: Iterable[str], names: Iterable[str]) -> list[Any]:
    """Parameters of a test, of which only some belong to the everyday suite."""
    chosen = set(everyday)
    return [
        name if name in chosen else pytest.param(name, marks=pytest.mark.slow) for name in names
    ]
