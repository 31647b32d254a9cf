"""Programs lowered here for other machines: what suits a CPU must not reach a GPU or a TPU."""

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp
import pytest

from benchmarks.programs import Program, initialisation, likelihood, sampling, training_step
from glow_jax import Config, ModelConfig
from glow_jax.config import OptimizerConfig, TrainingConfig
from glow_jax.flow import GradientMemory
from glow_jax.kernels.products import Precision

BATCH = 4
MODEL = ModelConfig(K=2, L=1, hidden_channels=8, image_shape=(8, 8, 3), y_classes=0)
ELSEWHERE = ("cuda", "tpu")
# A choice by platform is one of a number, by a constant, and then a case of one branch. XLA takes
# both away; see below.
_NUMBER = r"\{\s*%\S+ = stablehlo.constant .*\n\s*stablehlo.return .*\n\s*\}"
BY_PLATFORM = re.compile(rf'"stablehlo.case"\(%\w+\) \({_NUMBER}(?:, {_NUMBER})+\)')
ANOTHER_BRANCH = re.compile(r"^\s*\}, \{$", re.MULTILINE)
# What a program calls that is not XLA's. A rotation is drawn by QR and stored by its LU factors.
# Nothing else needs a kernel: those of a CPU's library keep its threads busy after every call.
KERNELS = {
    "cpu": {
        "initialisation": {"lapack_sgeqrf_ffi", "lapack_sorgqr_ffi", "lapack_sgetrf_ffi"},
    },
    "cuda": {
        "initialisation": {
            "cusolver_geqrf_ffi",
            "cusolver_orgqr_ffi",
            "cusolver_getrf_ffi",
            "cu_lu_pivots_to_permutation",
        }
    },
    "tpu": {
        "initialisation": {"Qr", "ProductOfElementaryHouseholderReflectors", "LuDecomposition"}
    },
}


def config_of(
    memory: GradientMemory = "remat",
    architecture: ModelConfig = MODEL,
    precision: Precision = "highest",
) -> Config:
    return Config(
        model=architecture,
        optimizer=OptimizerConfig(ema_decay=0.9),
        training=TrainingConfig(batch_size=BATCH, memory=memory, precision=precision),
    )


PROGRAMS: dict[str, Callable[[], Program]] = {
    "step, fast": lambda: training_step(config_of("fast"), BATCH),
    "step, remat": lambda: training_step(config_of("remat"), BATCH),
    "step, reversible": lambda: training_step(config_of("reversible"), BATCH),
    "likelihood": lambda: likelihood(config_of(), BATCH),
    "sample": lambda: sampling(config_of(), BATCH),
    "initialisation": lambda: initialisation(config_of(), BATCH),
}
STEPS = [name for name in PROGRAMS if name.startswith("step")]


@cache
def lowered(name: str) -> dict[str, str]:
    """The program's text for each platform; it is traced once, and nothing is computed."""
    return texts_of(PROGRAMS[name]())


def texts_of(program: Program) -> dict[str, str]:
    """The text for each platform."""
    traced = jax.jit(program.function).trace(*program.arguments)
    return {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", *ELSEWHERE)
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_convolutions_are_products_on_a_cpu_and_in_networks_on_a_gpu(name: str) -> None:
    found = {
        platform: text.count("stablehlo.convolution") for platform, text in lowered(name).items()
    }
    assert found["cpu"] == 0
    # The prior's, in a step its kernel's gradient too; in the initialisation the first layer's. It
    # is written for its own moments and for the next layer's: compilers compute it once.
    outside_networks = 2 if name in STEPS or name == "initialisation" else 1
    assert found["cuda"] == outside_networks
    assert found["tpu"] > outside_networks


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_update_is_a_branch_on_a_cpu_alone(name: str) -> None:
    texts = lowered(name)
    branches = {
        platform: len(ANOTHER_BRANCH.findall(BY_PLATFORM.sub("", text)))
        for platform, text in texts.items()
    }
    assert branches == {"cpu": int(name in STEPS), "cuda": 0, "tpu": 0}
    assert not any("stablehlo.if" in text for text in texts.values())


def test_nothing_is_left_of_choices_by_platform() -> None:
    function, arguments, _ = likelihood(config_of(), BATCH)
    text = jax.jit(function).lower(*arguments).as_text()
    assert "stablehlo.case" in text
    compiled = jax.jit(function).lower(*arguments).compile().as_text()
    assert compiled is not None
    assert "conditional" not in compiled
    branch = jax.jit(lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x)).lower(1.0)
    assert "conditional" in str(branch.compile().as_text())


@pytest.mark.parametrize("name", PROGRAMS)
def test_matrices_are_factored_by_what_each_platform_has(name: str) -> None:
    calls = {
        platform: set(re.findall(r"custom_call @(\w+)", text))
        for platform, text in lowered(name).items()
    }
    assert calls == {platform: KERNELS[platform].get(name, set()) for platform in calls}
    for text in lowered(name).values():
        assert "stablehlo.triangular_solve" not in text


# How exactly products and convolutions are computed.


def precisions(text: str, size: int) -> tuple[list[str], list[str]]:
    """The precisions of the products and convolutions, apart for those with a size like `size`."""
    with_size, others = [], []
    for line in text.splitlines():
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line:
            sizes = {n for dims in re.findall(r"tensor<([0-9x]+)x", line) for n in dims.split("x")}
            found = re.findall(r"\b(?:HIGHEST|HIGH|DEFAULT)\b", line)
            (with_size if str(size) in sizes else others).append(" ".join(found))
    return with_size, others


@pytest.mark.parametrize(
    ("precision", "memory", "dtype"),
    [
        ("high", "remat", "float32"),
        pytest.param("highest", "remat", "float32", marks=pytest.mark.slow),
        pytest.param("default", "remat", "float32", marks=pytest.mark.slow),
        pytest.param("high", "fast", "float32", marks=pytest.mark.slow),
        pytest.param("high", "fast", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_training_computes_the_networks_alone_at_their_precision(
    precision: Precision, memory: GradientMemory, dtype: Literal["float32", "bfloat16"]
) -> None:
    # No array of another layer has a size of 7. A split and the labels have layers of their own.
    sizes = {"hidden_channels": 7, "L": 2, "y_condition": True, "y_classes": 5}
    config = config_of(memory, dataclasses.replace(MODEL, **sizes), precision)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, dtype=dtype))
    program = training_step(config, BATCH)
    for platform, text in texts_of(program).items():
        networks, others = precisions(text, 7)
        # In each of two levels: three forwards, six of the gradient, and three again or one.
        assert len(networks) >= 2 * (12 if memory == "remat" else 10), platform
        assert set(networks) == {f"{precision} {precision}".upper()}, platform
        assert len(others) >= 10, platform
        assert set(others) == {"HIGHEST HIGHEST"}, platform


@pytest.mark.parametrize("name", PROGRAMS)
def test_all_else_computes_at_the_highest_precision(name: str) -> None:
    for platform, text in lowered(name).items():
        networks, others = precisions(text, MODEL.hidden_channels)
        assert set(networks + others) == {"HIGHEST HIGHEST"}, platform
