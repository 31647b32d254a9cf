"""Pixels to continuous values and back, and bits/dim."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import glow_jax
from glow_jax import GlowError, bits_per_dim, dequantize, to_pixels

EVERYDAY_BITS = (1, 5, 8)
ALL_BITS = pytest.mark.parametrize(
    "n_bits",
    [pytest.param(n, marks=() if n in EVERYDAY_BITS else pytest.mark.slow) for n in range(1, 9)],
)
# Every pixel value, in 64 images: (64, 16, 16, 1).
EVERY_PIXEL = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (64, 1, 1, 1))


def keys(n: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), n)


@pytest.fixture
def compiled_anew() -> Iterator[None]:
    """For a test that changes what programs are made of."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@ALL_BITS
@pytest.mark.parametrize("draws", ["random", "all_ones", "all_zeros"])
def test_every_bin_comes_back(
    n_bits: int, draws: str, monkeypatch: pytest.MonkeyPatch, compiled_anew: None
) -> None:
    if draws != "random":
        bits = {"all_ones": 2**32 - 1, "all_zeros": 0}[draws]
        monkeypatch.setattr(
            jax.random, "bits", lambda key, shape, dtype: jnp.full(shape, bits, dtype)
        )
    x = dequantize(jnp.asarray(EVERY_PIXEL), keys(64), n_bits=n_bits)
    assert x.dtype == jnp.float32
    assert x.min() >= -0.5
    assert x.max() < 0.5
    pixels = np.asarray(to_pixels(x, n_bits=n_bits))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels >> (8 - n_bits), EVERY_PIXEL >> (8 - n_bits))
    if n_bits == 8:
        np.testing.assert_array_equal(pixels, EVERY_PIXEL)
    if draws == "all_zeros":  # the bins' lower edges
        np.testing.assert_array_equal(x, (EVERY_PIXEL >> (8 - n_bits)) / 2.0**n_bits - 0.5)


@ALL_BITS
def test_noise_is_uniform_over_the_bin(n_bits: int) -> None:
    x = np.asarray(dequantize(jnp.asarray(EVERY_PIXEL), keys(64), n_bits=n_bits), np.float64)
    noise = (x + 0.5) * 2**n_bits - (EVERY_PIXEL >> (8 - n_bits))
    assert noise.min() >= 0
    assert noise.max() < 1
    assert scipy.stats.kstest(noise.ravel(), "uniform").pvalue > 0.001
    # Neighbouring values and images do not share their noise.
    flat = noise.reshape(64, -1)
    for one, other in ((flat[:, :-1], flat[:, 1:]), (flat[:-1], flat[1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.04  # 5 standard errors


def test_the_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    pixels, image_keys = jnp.asarray(EVERY_PIXEL[:5]), keys(5)
    batch = dequantize(pixels, image_keys)
    backwards = dequantize(pixels[::-1], image_keys[::-1])
    np.testing.assert_array_equal(backwards[::-1], batch)
    np.testing.assert_array_equal(dequantize(pixels[2:4], image_keys[2:4]), batch[2:4])
    np.testing.assert_array_equal(dequantize(pixels[3], image_keys[3]), batch[3])
    assert not np.array_equal(batch[0], batch[1])


def test_one_key_gives_every_image_its_own_noise() -> None:
    x = dequantize(jnp.asarray(EVERY_PIXEL[:2]), jax.random.key(0))
    assert not np.array_equal(x[0], x[1])
    assert np.array_equal(x, dequantize(jnp.asarray(EVERY_PIXEL[:2]), jax.random.key(0)))
    assert not np.array_equal(x, dequantize(jnp.asarray(EVERY_PIXEL[:2]), jax.random.key(1)))


def test_keys_may_be_raw_and_pixels_numpy_and_the_call_compiled() -> None:
    pixels, image_keys = EVERY_PIXEL[:3], keys(3)
    expected = dequantize(jnp.asarray(pixels), image_keys)
    raw = jax.random.key_data(image_keys)
    np.testing.assert_array_equal(dequantize(pixels, raw), expected)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(jax.jit(dequantize)(pixels, image_keys), expected)


def test_float64_does_not_change_the_noise(x64: None) -> None:
    x = dequantize(jnp.asarray(EVERY_PIXEL[:1]), keys(1))
    assert x.dtype == jnp.float32
    with jax.enable_x64(False):
        expected = np.asarray(dequantize(jnp.asarray(EVERY_PIXEL[:1]), keys(1)))
    np.testing.assert_array_equal(x, expected)


@ALL_BITS
def test_bins_are_spread_over_0_to_255(n_bits: int) -> None:
    top = 2**n_bits - 1
    centres = (np.arange(top + 1) + 0.5) / 2**n_bits - 0.5
    pixels = to_pixels(jnp.asarray(centres, jnp.float32), n_bits=n_bits)
    np.testing.assert_array_equal(pixels, np.round(np.linspace(0, 255, top + 1)))


def test_to_pixels_by_hand() -> None:
    x = jnp.array([-7.0, -0.5, -0.01, 0.0, 0.49, 0.5, 0.51, 300.0, jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(
        to_pixels(x, n_bits=1), [0, 0, 0, 255, 255, 255, 255, 255, 255, 0]
    )
    np.testing.assert_array_equal(to_pixels(x), [0, 0, 125, 128, 253, 255, 255, 255, 255, 0])
    np.testing.assert_array_equal(
        to_pixels(jnp.array([-0.26, -0.25, 0.24, 0.25]), n_bits=2), [0, 85, 170, 255]
    )


@ALL_BITS
def test_to_pixels_takes_float64(n_bits: int, x64: None) -> None:
    # Just below an edge is still the bin below; float32 would round these up to the edge.
    edges = np.arange(1, 2**n_bits) / 2**n_bits - 0.5
    for values, bins in (
        (edges, np.arange(1, 2**n_bits)),
        (edges - 2.0**-50, np.arange(len(edges))),
    ):
        pixels = np.asarray(to_pixels(jnp.asarray(values), n_bits=n_bits))
        np.testing.assert_array_equal(pixels >> (8 - n_bits), bins)


@pytest.mark.parametrize("n_bits", [8, 5, 1])
def test_bits_per_dim(n_bits: int) -> None:
    log_prob = jnp.array([-300.0, 0.0, 120.0])
    shape, dimensions = (4, 6, 3), 72
    discrete = np.asarray(log_prob) - dimensions * np.log(2**n_bits)  # of the bins, in nats
    expected = -discrete / (dimensions * np.log(2))
    np.testing.assert_allclose(
        bits_per_dim(log_prob, shape, n_bits=n_bits), expected, rtol=1e-6, atol=1e-6
    )


@ALL_BITS
def test_a_uniform_density_costs_n_bits(n_bits: int) -> None:
    assert bits_per_dim(jnp.zeros(()), (8, 8, 1), n_bits=n_bits) == n_bits


@pytest.mark.parametrize("n_bits", [0, 9, -1, 2.5])
def test_n_bits_out_of_range(n_bits: Any) -> None:
    pixels, x = jnp.asarray(EVERY_PIXEL[:1]), jnp.zeros((1, 2, 2, 1))
    for call in (
        lambda: dequantize(pixels, keys(1), n_bits=n_bits),
        lambda: to_pixels(x, n_bits=n_bits),
        lambda: bits_per_dim(jnp.zeros(1), (2, 2, 1), n_bits=n_bits),
    ):
        with pytest.raises(GlowError, match=f"n_bits is {n_bits}"):
            call()


def test_wrong_dtypes_and_keys() -> None:
    pixels = jnp.asarray(EVERY_PIXEL[:3])
    with pytest.raises(GlowError, match="not float32"):
        dequantize(pixels.astype(jnp.float32), keys(3))
    with pytest.raises(TypeError, match="not int32"):
        dequantize(pixels.astype(jnp.int32), keys(3))
    with pytest.raises(GlowError, match="one per image"):
        dequantize(pixels, keys(2))
    with pytest.raises(TypeError, match="not uint8"):
        to_pixels(pixels)


def test_the_three_are_public() -> None:
    assert {"dequantize", "to_pixels", "bits_per_dim"} <= set(glow_jax.__all__)


@pytest.mark.parametrize("n_bits", [4.0, True, 0, 9])
def test_n_bits_must_be_a_whole_number_from_1_to_8(n_bits) -> None:
    with pytest.raises(GlowError, match="n_bits"):
        dequantize(np.zeros((1, 2, 2, 1), np.uint8), jax.random.key(0), n_bits=n_bits)


def test_one_image_takes_one_key_and_not_one_per_row() -> None:
    with pytest.raises(GlowError, match="one key"):
        dequantize(np.zeros((2, 2, 1), np.uint8), jax.random.split(jax.random.key(0), 2))


def test_to_pixels_of_low_precision_values_is_exact() -> None:
    for n_bits in range(1, 9):
        bins = np.arange(2**n_bits)
        x = (bins + 0.5) / 2**n_bits - 0.5
        exact = to_pixels(jnp.asarray(x, jnp.float32), n_bits=n_bits)
        if (np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) == x).all():
            low = to_pixels(jnp.asarray(x, jnp.bfloat16), n_bits=n_bits)
            np.testing.assert_array_equal(low, exact)
