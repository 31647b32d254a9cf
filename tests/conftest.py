"""How the whole suite compiles, and fixtures that several test files share.

Compiling is most of the tests' time. So programs are compiled without optimisation, here and in the
scripts that tests start, and each is compiled once in a session, whichever worker needs it first. A
test about what the compiler makes of a program is marked `optimised`.
"""

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small_models
from flax import nnx

# XLA's older way to generate loops compiles a gradient four times as fast. jaxlib 0.11 lacks it,
# and XLA refuses flags that it does not know. XLA reads them once, before the first program.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_cpu_use_fusion_emitters=false".strip()

# JAX's compiler for NVIDIA GPUs, where it is installed, compiles without a GPU's driver too.
os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")

# Several devices, so that whatever depends on their number shows.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)

# Whatever compiles faster is not worth a file.
_WORTH_KEEPING_SECONDS = "0.05"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests of numbers keep them for the documentation."""
    what = "JSON file that gets the figures which tests measure (with -n 0)"
    parser.addoption("--figures", type=Path, help=what)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and accept a kept program that another worker is still writing.

    JAX then says that it cannot read the file, and compiles.
    """
    if config.getoption("--figures") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--figures takes -n 0: one process at a time writes the file.")
    config.addinivalue_line("markers", "optimised: what it compiles is compiled with optimisation")
    unreadable = "ignore:Error reading persistent compilation cache entry"
    config.addinivalue_line("filterwarnings", unreadable)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Switch optimisation on for a test so marked and its fixtures, and off for others."""
    quick = item.get_closest_marker("optimised") is None
    if jax.config.values["jax_disable_most_optimizations"] != quick:
        jax.clear_caches()  # compiled programs do not know how they were compiled
        jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture(autouse=True, scope="session")
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All workers of a session, and the scripts that they start, share what they compile."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    compiled = str(folder / "compiled")
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(_WORTH_KEEPING_SECONDS))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = _WORTH_KEEPING_SECONDS
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"


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


@pytest.fixture(scope="session")
def plain(randomise: Callable[..., Any]) -> small_models.Pair:
    """A model without labels, and what it makes of 5 images."""
    return small_models.pair("affine_lu", randomise)


@pytest.fixture(scope="session")
def conditional(randomise: Callable[..., Any]) -> small_models.Pair:
    """A model with labels, and what it makes of 5 images."""
    return small_models.pair("conditional_shuffle", randomise)


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for the length of one test."""
    with jax.enable_x64(True):
        yield
