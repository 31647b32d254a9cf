"""JAX against the PyTorch reference in float32, in programs compiled as a user's are."""

import math

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
from glow_jax.layers.convolution import Formulation
from glow_jax.model import computing

pytestmark = pytest.mark.optimised

FIGURES = Figures("JAX and our PyTorch reference, float32")
print_figures = print_when_done(FIGURES)


def check_float32(config: ModelConfig, formulation: Formulation | None = None) -> None:
    model, reference = make_pair(config, torch.float32)
    model = computing(model, formulation=formulation)
    x, y, noise = make_images(config, 3, np.float32)
    ours, theirs = run_jax(model, x, y, noise), run_torch(reference, x, y, noise)
    wide = [part.astype(np.float64) for part in noise]
    labels = None if y is None else y.astype(np.float64)
    exact = run_torch(reference.double(), x.astype(np.float64), labels, wide)
    assert largest(theirs["decoded"], x) <= 1e-4

    bits = largest(ours["bits_per_dim"], theirs["bits_per_dim"])
    FIGURES.check("float32: bits/dim", bits, 1e-5)
    nats = config.dimensions * math.log(2)
    log_dets = largest(ours["log_det"] / nats, theirs["log_det"] / nats)
    FIGURES.check("float32: log-determinant / (D log 2)", log_dets, 1e-5)
    for name in ("latents", "noise", "logits", "sample"):
        if ours[name] is not None:
            bound = max(1e-4, 4 * largest(theirs[name], exact[name]))
            FIGURES.check(f"float32: {name}", largest(ours[name], theirs[name]), bound)
    bound = max(1e-4, 4 * largest(theirs["decoded"], x))
    FIGURES.check("float32: encode -> decode", largest(ours["decoded"], x), bound)


OTHERS = ("reverse-additive-conditional-3", "shuffle-affine-3", "pad-ones-mixed")


@pytest.mark.parametrize("name", slow_but(FLOAT32, FLOAT32 + OTHERS))
def test_the_same_numbers_in_float32(name: str) -> None:
    check_float32(COVERING[name])


def test_the_same_numbers_by_convolutions() -> None:
    check_float32(COVERING["lu-affine-top-conditional-3"], "convolution")


@pytest.mark.slow
@pytest.mark.parametrize("settings", PRODUCT, ids=lambda s: "-".join(map(str, s)))
def test_the_same_numbers_for_every_mix_in_float32(settings: tuple) -> None:
    check_float32(make_config(*settings))
