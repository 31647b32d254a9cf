"""Fixtures that several test files share."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx


def _randomise(module: Any, seed: int = 0, scale: float = 0.2) -> Any:
    rng = np.random.default_rng(seed)
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    params = jax.tree.map(
        lambda p: p + (scale * rng.standard_normal(p.shape)).astype(p.dtype), params
    )
    return nnx.merge(graph, params, rest)


@pytest.fixture(scope="session")
def randomise() -> Callable[..., Any]:
    """`randomise(module, seed, scale)`: the module with noise added to every parameter.

    Layers start as near-identities (zero kernels, zero logs), which would hide most errors.
    """
    return _randomise


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
