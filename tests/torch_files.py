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
