"""JAX against the PyTorch reference in float64: every kind of model, every number."""

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from parity import Figures, print_when_done
from parity_models import (
    COVERING,
    FLOAT32,
    PRODUCT,
    largest,
    make_config,
    make_images,
    make_pair,
    run_jax,
    run_torch,
    slow_but,
)

from glow_jax import ModelConfig

# Float64 has digits to spare for whatever order of operations an unoptimised program has.
pytestmark = pytest.mark.usefixtures("x64")

FIGURES = Figures("JAX and our PyTorch reference, float64")
print_figures = print_when_done(FIGURES)


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


@pytest.mark.parametrize("name", slow_but(COVERING.keys() - set(FLOAT32), COVERING))
def test_the_same_numbers_in_float64(name: str) -> None:
    check_float64(COVERING[name])


@pytest.mark.slow
@pytest.mark.parametrize("settings", PRODUCT, ids=lambda s: "-".join(map(str, s)))
def test_the_same_numbers_for_every_mix_in_float64(settings: tuple) -> None:
    check_float64(make_config(*settings))
