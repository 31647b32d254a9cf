"""Small PyTorch checkpoints for the tests of the bridge, and what they need to run the commands."""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glow_jax import ModelConfig
from glow_jax.bridge import mapping

# Tensors as small as these are faster on one thread.
torch.set_num_threads(1)

DATA = Path(__file__).parent / "data" / "additive_lu_grey"
TINY = ModelConfig(K=2, L=2, hidden_channels=4, image_shape=(4, 8, 3))

Values = dict[str, np.ndarray]


def make_values(config: ModelConfig) -> Values:
    """Weights in the published layout."""
    torch.manual_seed(0)
    model = mapping.build_reference(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return {key: tensor.numpy() for key, tensor in model.state_dict().items()}


@functools.cache
def _tiny() -> Values:
    return make_values(TINY)


def tiny_values() -> Values:
    """Weights of the architecture TINY, which are not to be written to."""
    return dict(_tiny())


def as_chaiyujin(values: Values) -> Values:
    """The published layout under chaiyujin's names."""
    renamed = {}
    for key, value in values.items():
        key = key.replace(".block.", ".f.").replace("learn_top_fn.", "learn_top.")
        key = key.replace(".conv.weight", ".weight").replace("invconv.lower", "invconv.l")
        key = key.replace(".f.4.conv.bias", ".f.4.bias").replace("conv.conv.", "conv.")
        key = key.replace("learn_top.conv.", "learn_top.").replace("invconv.upper", "invconv.u")
        parts = key.split(".")
        if parts[-2:] == ["3", "weight"]:
            key = "flow.layers.3.conv.weight"
        renamed[key] = value
    return renamed


def make_rosinality(K: int = 2, L: int = 2, hidden: int = 4, affine: bool = True) -> dict:
    """Random weights under rosinality's keys, plain but for the last level, scales of any sign."""
    rng = np.random.default_rng(0)
    values: Values = {}

    def draw(*shape: int) -> np.ndarray:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)

    for b in range(L):
        C = 12 * 2**b
        for k in range(K):
            at = f"blocks.{b}.flows.{k}."
            values[at + "actnorm.loc"] = draw(1, C, 1, 1)
            signs = rng.choice([-1, 1], (1, C, 1, 1)).astype(np.float32)
            values[at + "actnorm.scale"] = signs * np.exp(draw(1, C, 1, 1))
            values[at + "actnorm.initialized"] = np.array(1, np.uint8)
            if b < L - 1:
                weight, _ = np.linalg.qr(rng.standard_normal((C, C)))
                values[at + "invconv.weight"] = weight[:, :, None, None].astype(np.float32)
            else:
                ones = np.ones((C, C), np.float32)
                values |= {
                    at + "invconv.w_l": draw(C, C),
                    at + "invconv.w_s": draw(C),
                    at + "invconv.w_u": draw(C, C),
                    at + "invconv.w_p": np.eye(C, dtype=np.float32)[rng.permutation(C)],
                    at + "invconv.u_mask": np.triu(ones, 1),
                    at + "invconv.l_mask": np.tril(ones, -1),
                    at + "invconv.s_sign": np.sign(draw(C)),
                    at + "invconv.l_eye": np.eye(C, dtype=np.float32),
                }
            outputs = C if affine else C // 2
            net = at + "coupling.net."
            values |= {
                net + "0.weight": draw(hidden, C // 2, 3, 3),
                net + "0.bias": draw(hidden),
                net + "2.weight": draw(hidden, hidden, 1, 1),
                net + "2.bias": draw(hidden),
                net + "4.scale": draw(1, outputs, 1, 1),
                net + "4.conv.weight": draw(outputs, hidden, 3, 3),
                net + "4.conv.bias": draw(outputs),
            }
        inputs, outputs = (C, 2 * C) if b == L - 1 else (C // 2, C)
        values[f"blocks.{b}.prior.scale"] = draw(1, outputs, 1, 1)
        values[f"blocks.{b}.prior.conv.weight"] = draw(outputs, inputs, 3, 3)
        values[f"blocks.{b}.prior.conv.bias"] = draw(outputs)
    return values


def as_tensors(values: Values) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in values.items()}


def save(values: Any, path: Path, **how: Any) -> Path:
    """Save anything by PyTorch; arrays in a dict become tensors."""
    if isinstance(values, dict):
        values = {
            key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for key, value in values.items()
        }
    torch.save(values, path, **how)
    return path


def spoil(values: Values, key: str, how: str) -> Values:
    """The weights with one fault, `how`, at a key; a number there fills its array."""
    values = dict(values)
    if how == "missing":
        del values[key]
    elif how == "extra":
        values[key] = np.zeros(3, np.float32)
    elif how == "shape":
        values[key] = np.repeat(values[key], 2, axis=-1)
    elif how == "integers":
        values[key] = values[key].astype(np.int64)
    else:
        values[key] = np.full_like(values[key], float(how))
    return values


def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two state dicts have the same keys in the same order, and equal arrays."""
    return list(a) == list(b) and all(
        np.array_equal(np.asarray(a[key]), np.asarray(b[key])) for key in a
    )


def exit_status(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> int:
    """The exit status of a command run in this process."""
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
