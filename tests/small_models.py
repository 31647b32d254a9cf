"""Small models of every kind, and what they are given."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from glow_jax import Code, Glow, ModelConfig

# Most share their shapes, so that what building a model compiles is compiled once.
SMALL: dict[str, Any] = {"image_shape": (4, 8, 1), "K": 2, "L": 2, "hidden_channels": 5}
CLASSES = 3
CONDITIONAL: dict[str, Any] = {"y_condition": True, "y_classes": CLASSES}
CONFIGS: dict[str, dict[str, Any]] = {
    "affine_lu": {"image_shape": (4, 8, 3)},
    "additive_plain_grey": {"flow_coupling": "additive", "LU_decomposed": False},
    "conditional_shuffle": {**CONDITIONAL, "flow_permutation": "shuffle"},
    "multi_class_plain_level_no_learn_top": {
        **CONDITIONAL,
        "multi_class": True,
        "plain_levels": (1,),
        "learn_top": False,
    },
    "multi_class_plain_level_edge_bias": {
        **CONDITIONAL,
        "image_shape": (8, 4, 4),
        "multi_class": True,
        "plain_levels": (1,),
        "padding": "edge_bias",
        "actnorm_logs_factor": 3.0,
    },
    "multi_class_plain_level_pad_ones": {
        **CONDITIONAL,
        "image_shape": (8, 4, 4),
        "multi_class": True,
        "plain_levels": (1,),
        "padding": "ones",
    },
    "pad_ones_4_channels": {
        "image_shape": (8, 4, 4),
        "flow_permutation": "shuffle",
        "padding": "ones",
    },
    "edge_bias_no_classifier": {
        **CONDITIONAL,
        "LU_decomposed": False,
        "padding": "edge_bias",
        "actnorm_logs_factor": 3.0,
        "classifier": False,
    },
    "three_levels_of_one_step": {
        "image_shape": (8, 8, 1),
        "L": 3,
        "K": 1,
        "flow_permutation": "reverse",
        "flow_coupling": "additive",
    },
    "one_level_no_learn_top": {"L": 1, "flow_permutation": "reverse", "learn_top": False},
}

# Each of these has what others have together.
SLOW = (
    "multi_class_plain_level_pad_ones",
    "edge_bias_no_classifier",
    "multi_class_plain_level_no_learn_top",
    "pad_ones_4_channels",
    "three_levels_of_one_step",
    "additive_plain_grey",
)


def build(name: str, **changes: Any) -> Glow:
    config = ModelConfig(**{**SMALL, **CONFIGS[name], **changes})
    return jax.jit(lambda key: Glow(config, rngs=nnx.Rngs(key)))(jax.random.key(0))


def images(model: Glow, batch: int, seed: int = 1) -> jax.Array:
    """In the default dtype: float64 where x64 is on."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-0.5, 0.5, (batch, *model.config.image_shape)), float)


def labels(model: Glow, batch: int) -> jax.Array | None:
    if not model.config.y_condition:
        return None
    if model.config.multi_class:
        return jnp.asarray(np.arange(batch)[:, None] % (np.arange(CLASSES) + 2) == 1, float)
    return jnp.asarray(np.eye(CLASSES)[(np.arange(batch) + 1) % CLASSES], float)


def flatten(parts: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1)


def step_of(level: Any, k: int) -> Any:
    """Step `k` of a level's stacked steps."""
    return jax.tree.map(lambda stacked: stacked[k], level.steps)


def convolve(x: np.ndarray, kernel: np.ndarray, padding: str = "zeros") -> np.ndarray:
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = np.pad(x, around, constant_values=float(padding == "ones"))
    if padding == "edge_bias":
        ring = np.pad(np.zeros_like(x[..., :1]), around, constant_values=1)
        padded = np.concatenate([padded, ring], axis=3)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("bhwiyx,yxio->bhwo", windows, kernel)


def zero_conv(x: np.ndarray, layer: Any) -> np.ndarray:
    """(conv + bias) * exp(3 logs), by numpy."""
    kernel, bias, logs = (np.asarray(p[...]) for p in (layer.kernel, layer.bias, layer.logs))
    return (convolve(x, kernel, padding=layer.padding) + bias) * np.exp(3 * logs)


class Pair(NamedTuple):
    """A float32 model with random parameters, and its code of 5 images."""

    model: Glow
    x: jax.Array
    y: jax.Array | None
    code: Code


def pair(name: str, randomise: Callable[..., Any]) -> Pair:
    model = randomise(build(name), scale=0.1)
    x, y = images(model, 5), labels(model, 5)
    return Pair(model, x, y, model.encode(x, y))
