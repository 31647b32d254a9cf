"""Fixtures that several test files share."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

# Several devices, so that whatever depends on their number shows.
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="session")
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled programs are shared by the tests of a session: compiling is most of their time."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


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


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Compile without LLVM's optimisations: tiny programs spend a test's time in the compiler."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
