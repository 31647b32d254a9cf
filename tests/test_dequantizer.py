"""Variational dequantisation: the noise stays in its bin, and its density is the Jacobian's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from glow_jax import Glow, GlowError, ModelConfig, dequantize, initialise_actnorm, to_pixels
from glow_jax.config import Dequantization
from glow_jax.evaluation.diagnosis import first_nonfinite_layer
from glow_jax.model import computing, with_uniform_dequantization
from glow_jax.pixels import in_bins, places_in_bins

EVERY_PIXEL = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
CONFIG = ModelConfig(
    K=1, L=1, hidden_channels=4, image_shape=(4, 6, 2), n_bits=5, dequantization="variational"
)


@pytest.fixture(scope="module")
def model(randomise: Callable[..., Any]) -> Glow:
    built = jax.jit(lambda key: Glow(CONFIG, rngs=nnx.Rngs(key)))(jax.random.key(0))
    return randomise(built)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 4, 6, 2), dtype=np.uint8)


def noisy(model: Glow, pixels: np.ndarray) -> jax.Array:
    return model.dequantize(pixels, jax.random.key(1))


@pytest.mark.parametrize("n_bits", [1, 5, 8])
@pytest.mark.parametrize("place", [0.0, 1e-9, 0.3, 1 - 2.0**-17, 1 - 2.0**-24, 1.0])
def test_every_place_is_in_its_bin(n_bits: int, place: float) -> None:
    x = dequantize(EVERY_PIXEL, jax.random.key(0), n_bits=n_bits)
    moved = in_bins(x, jnp.full(x.shape, place), n_bits=n_bits)
    assert moved.dtype == jnp.float32
    bins = EVERY_PIXEL >> (8 - n_bits)
    np.testing.assert_array_equal(to_pixels(moved, n_bits=n_bits) >> (8 - n_bits), bins)
    noise = (np.asarray(moved, np.float64) + 0.5) * 2**n_bits - bins
    assert noise.min() >= 0
    assert noise.max() < 1
    np.testing.assert_allclose(noise, place, rtol=0, atol=2.0 ** (n_bits - 24))


@pytest.mark.parametrize("n_bits", [1, 5, 8])
def test_places_are_those_of_the_noise(n_bits: int) -> None:
    x = dequantize(EVERY_PIXEL, jax.random.key(0), n_bits=n_bits)
    centres, places = places_in_bins(x, n_bits=n_bits)
    bins = np.asarray(EVERY_PIXEL >> (8 - n_bits), np.float64)
    np.testing.assert_array_equal(centres, (bins + 0.5) / 2**n_bits - 0.5)
    noise = (np.asarray(x, np.float64) + 0.5) * 2**n_bits - bins
    # The middle of the grid's cell.
    np.testing.assert_allclose(places, noise + 2.0 ** (n_bits - 25), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(in_bins(x, places - 2.0 ** (n_bits - 25), n_bits=n_bits), x)


def test_log_determinant_is_that_of_the_jacobian(
    model: Glow, pixels: np.ndarray, x64: None
) -> None:
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    double = nnx.merge(
        graph,
        *(
            jax.tree.map(lambda p: jnp.asarray(np.asarray(p), float), part)
            for part in (params, rest)
        ),
    )
    x = jnp.asarray(np.asarray(noisy(model, pixels)), float)
    _, logdet = double.redequantize(x)
    jacobian = jax.jit(jax.jacobian(lambda x: double.redequantize(x)[0]))(x)
    jacobian = np.asarray(jacobian).reshape(3, 48, 3, 48)
    expected = [np.linalg.slogdet(jacobian[image, :, image])[1] for image in range(3)]
    np.testing.assert_allclose(logdet, expected, rtol=0, atol=1e-9)
    assert not jacobian[0, :, 1].any()
    single = model.redequantize(x.astype(jnp.float32))[1]
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-4)


def test_noise_moves_within_the_pixels_and_depends_on_them(model: Glow, pixels: np.ndarray) -> None:
    x = noisy(model, pixels)
    moved, _ = model.redequantize(x)
    np.testing.assert_array_equal(model.to_pixels(moved), model.to_pixels(x))
    assert np.mean(np.asarray(moved != x)) > 0.9
    other = x.at[:, 0, 0, 0].set(jnp.where(x[:, 0, 0, 0] < 0, 0.2, -0.2))
    differs = np.asarray(model.redequantize(other)[0] != moved)
    assert differs[:, 1:3, 1:3].any(axis=(1, 2, 3)).all()


def test_bits_per_dim_count_the_noise(model: Glow, pixels: np.ndarray) -> None:
    x = noisy(model, pixels)
    moved, logdet = model.redequantize(x)
    expected = 5 - (model.log_prob(moved) + logdet) / (48 * np.log(2))
    np.testing.assert_allclose(model.bits_per_dim(x), expected, rtol=1e-5)
    uniform = with_uniform_dequantization(model)
    expected = 5 - model.log_prob(x) / (48 * np.log(2))
    np.testing.assert_allclose(uniform.bits_per_dim(x), expected, rtol=1e-5)
    assert uniform.config.dequantization == "uniform"
    assert model.config.dequantization == "variational"
    same, nothing = uniform.redequantize(x)
    np.testing.assert_array_equal(same, x)
    assert not np.any(nothing)


def test_a_seed_gives_the_same_flow_with_either_noise() -> None:
    def flow(kind: Dequantization) -> Glow:
        config = ModelConfig(
            K=1, L=1, hidden_channels=4, image_shape=(4, 6, 2), n_bits=5, dequantization=kind
        )
        return jax.jit(lambda: Glow(config, rngs=nnx.Rngs(0)))()

    one, other = flow("uniform"), with_uniform_dequantization(flow("variational"))
    assert one.config == other.config
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_initialisation_starts_near_uniform_noise(pixels: np.ndarray) -> None:
    built = jax.jit(lambda key: Glow(CONFIG, rngs=nnx.Rngs(key)))(jax.random.key(0))
    many = np.random.default_rng(0).integers(0, 256, (200, 4, 6, 2), dtype=np.uint8)
    x = noisy(built, many)
    model = initialise_actnorm(built, x)
    moved, logdet = model.redequantize(x)
    # In nats of a value: 0 would be uniform, and it is a Kullback-Leibler divergence.
    assert 0 < -float(logdet.mean()) / 48 < 0.05
    # The flow's actnorms have seen what the dequantiser gives.
    first = jax.tree.map(lambda leaf: leaf[0], model.levels[0].steps).actnorm
    y, _ = first.forward(model.levels[0].squeeze.forward(moved)[0])
    np.testing.assert_allclose(jnp.mean(y, axis=(0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.std(y, axis=(0, 1, 2)), 1, atol=1e-3)


@pytest.mark.parametrize("memory", ["remat", "reversible"])
def test_gradients_do_not_depend_on_what_is_kept(
    memory: Any, model: Glow, pixels: np.ndarray
) -> None:
    x = noisy(model, pixels)

    def gradient(memory: Any) -> nnx.State:
        graph, params, rest = nnx.split(computing(model, memory=memory), nnx.Param, ...)
        loss = jax.jit(jax.grad(lambda p: nnx.merge(graph, p, rest).bits_per_dim(x).mean()))
        return loss(params)

    kept, again = gradient("fast"), gradient(memory)
    for path, leaf in jax.tree.leaves_with_path(kept["dequantizer"]):
        assert np.any(leaf), jax.tree_util.keystr(path)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), kept, again)


def test_a_flow_that_is_not_finite_is_named(model: Glow, pixels: np.ndarray) -> None:
    broken = nnx.clone(model)
    assert broken.dequantizer is not None
    actnorm = broken.dequantizer.level.steps.actnorm
    actnorm.bias[...] = actnorm.bias[...] * jnp.nan
    x = noisy(model, pixels)
    assert first_nonfinite_layer(broken, x, None) == "the dequantisation flow"
    assert first_nonfinite_layer(model, x, None) is None


def test_redequantize_checks_its_images(model: Glow) -> None:
    with pytest.raises(GlowError, match="not uint8"):
        model.redequantize(np.zeros((1, 4, 6, 2), np.uint8))
