"""Small models of openai/glow: their architectures, variables and settings, for tests."""

from typing import Any

import numpy as np

from glow_jax import ModelConfig
from glow_jax.bridge.layouts import openai


def architecture(**settings: Any) -> ModelConfig:
    """One of theirs, but narrow, flat and small."""
    return ModelConfig(
        **{"K": 2, "L": 3, "hidden_channels": 4, "image_shape": (8, 8, 3), **settings},
        LU_decomposed=False,
        padding="edge_bias",
        actnorm_logs_factor=3.0,
    )


def variables(model: ModelConfig) -> dict[str, np.ndarray]:
    """Random variables of an architecture, under their names."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        name: (0.1 * rng.standard_normal(place.shape)).astype(np.float32)
        for name, place in openai.places(model).items()
    }
    for name in arrays:
        if name.endswith("invconv/W"):
            arrays[name] += np.eye(len(arrays[name]), dtype=np.float32)
    for name, (channels,) in openai.order_shapes(model).items():
        order = np.random.default_rng(channels).permutation(channels).astype(np.int32)
        inverse = np.argsort(order).astype(np.int32)
        arrays[name] = inverse if name.endswith("_inverse") else order
    return arrays


def averages(model: ModelConfig) -> dict[str, np.ndarray]:
    """Averages of the trained variables of an architecture, under their names."""
    trained, arrays = openai.places(model), variables(model)
    return {f"{name}/ExponentialMovingAverage": 0.9 * arrays[name] for name in trained}


def slots(model: ModelConfig, updates: int = 3) -> dict[str, np.ndarray]:
    """The state of their Adamax after some updates, under the names that their program gives."""
    arrays: dict[str, np.ndarray] = {"Variable": np.array(updates + 1, np.float32)}
    for j, place in enumerate(openai.places(model).values()):
        arrays[f"Variable_{2 * j + 1}"] = np.full(place.shape, 0.02, np.float32)
        arrays[f"Variable_{2 * j + 2}"] = np.full(place.shape, -0.01, np.float32)
    return arrays


def settings(model: ModelConfig, **more: Any) -> dict[str, Any]:
    """Line 1 of train.txt, with keys that only the published ones have."""
    permutations, couplings = ("reverse", "shuffle", "invconv"), ("additive", "affine")
    return {
        "depth": model.K,
        "n_levels": model.L,
        "width": model.hidden_channels,
        "image_size": model.image_shape[0],
        "flow_permutation": permutations.index(model.flow_permutation),
        "flow_coupling": couplings.index(model.flow_coupling),
        "n_bits_x": model.n_bits,
        "learntop": model.learn_top,
        "ycond": False,
        "weight_y": 0.0,
        "train_its": 20,
        "beta3": 0.9,
        "shift": 1,
        "eps_beta": 0.95,
        **more,
    }
