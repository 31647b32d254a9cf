"""Whole models: likelihoods by hand, exact inverses, and what depends on what."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx
from small_models import CONFIGS, SLOW, Pair, build, flatten, images, labels, step_of, zero_conv

from glow_jax import Code, Glow, bits_per_dim, dequantize, initialise_actnorm, to_pixels


class Examined(NamedTuple):
    """A model in float64 with random parameters, and what it makes of two images."""

    model: Glow
    x: np.ndarray
    y: np.ndarray | None
    code: Code
    again: np.ndarray
    again_from_noise: np.ndarray
    latent_jacobian: np.ndarray
    noise_jacobian: np.ndarray
    tops: list[np.ndarray]
    logdets: list[np.ndarray]


def examine(model: Glow, x: jax.Array, y: jax.Array | None) -> dict[str, Any]:
    code = model.encode(x, y)

    def latents_and_noise(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        code = model.encode(x, y)
        return flatten(code.latents), flatten(code.noise)

    shape = (x.shape[0], x[0].size, x.shape[0], x[0].size)
    latent_jacobian, noise_jacobian = jax.jacobian(latents_and_noise)(x)
    # The levels step by step, without the scan: what each gives before its split.
    run = jax.jit(lambda step, h: step.forward(h))
    h, tops, logdets = x, [], []
    for level in model.levels:
        h, _ = level.squeeze.forward(h)
        total = jnp.zeros(x.shape[0])
        for k in range(model.config.K):
            h, logdet = run(step_of(level, k), h)
            total += logdet
        tops.append(h)
        logdets.append(total)
        h = h[..., : h.shape[-1] // 2]
    return {
        "code": code,
        "again": model.decode(code.latents, y),
        "again_from_noise": model.decode_noise(code.noise, y),
        "latent_jacobian": latent_jacobian.reshape(shape),
        "noise_jacobian": noise_jacobian.reshape(shape),
        "tops": tops,
        "logdets": logdets,
    }


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CONFIGS],
)
def examined(request: pytest.FixtureRequest, randomise: Callable[..., Any]) -> Examined:
    with jax.enable_x64(True):
        model = randomise(build(request.param), scale=0.08)
        x, y = images(model, 2), labels(model, 2)
        results = {"model": model, "x": x, "y": y, **jax.jit(examine)(model, x, y)}
    # As numpy arrays, which stay float64 outside of this context.
    as_numpy = {name: jax.tree.map(np.asarray, value) for name, value in results.items()}
    return Examined(**as_numpy)


def priors_by_hand(examined: Examined) -> list[tuple[np.ndarray, np.ndarray]]:
    """Means and deviations of every level's latent."""
    model, y = examined.model, examined.y
    priors = []
    for split, top in zip(model.splits, examined.tops[:-1], strict=True):
        h = zero_conv(top[..., : top.shape[-1] // 2], split.conv)
        priors.append((h[..., 0::2], np.exp(h[..., 1::2])))
    prior, shape = model.top_prior, examined.tops[-1].shape
    h = np.zeros((*shape[:3], 2 * shape[3]))
    if prior.learned is not None:
        h = zero_conv(h, prior.learned)
    if prior.from_label is not None:
        layer = prior.from_label
        assert y is not None
        kernel, bias, logs = (np.asarray(p[...]) for p in (layer.kernel, layer.bias, layer.logs))
        h = h + ((y @ kernel + bias) * np.exp(3 * logs))[:, None, None, :]
    return [*priors, (h[..., : shape[3]], np.exp(h[..., shape[3] :]))]


def test_latents_are_what_the_steps_give(examined: Examined) -> None:
    for i, (latent, top) in enumerate(zip(examined.code.latents, examined.tops, strict=True)):
        last = i == len(examined.tops) - 1
        expected = top if last else top[..., top.shape[-1] // 2 :]
        np.testing.assert_allclose(latent, expected, rtol=0, atol=1e-10)
    shapes = tuple(latent.shape[1:] for latent in examined.code.latents)
    assert shapes == examined.model.config.latent_shapes


def test_likelihood_by_the_jacobian_and_densities_by_hand(examined: Examined) -> None:
    code = examined.code
    jacobian = examined.latent_jacobian
    densities = np.zeros((2, len(code.latents)))
    for i, (mean, deviation) in enumerate(priors_by_hand(examined)):
        latent = code.latents[i]
        density = scipy.stats.norm.logpdf(latent, mean, deviation)
        densities[:, i] = density.sum((1, 2, 3))
        np.testing.assert_allclose(code.noise[i], (latent - mean) / deviation, rtol=0, atol=1e-9)
    logdet = np.array([np.linalg.slogdet(jacobian[b, :, b])[1] for b in range(2)])
    np.testing.assert_allclose(code.log_prob, logdet + densities.sum(1), rtol=0, atol=1e-8)
    levels = np.stack(examined.logdets, axis=1) + densities
    np.testing.assert_allclose(code.level_log_prob, levels, rtol=0, atol=1e-8)
    np.testing.assert_allclose(code.level_log_prob.sum(1), code.log_prob, rtol=1e-12)
    assert not jacobian[0, :, 1].any()
    assert not jacobian[1, :, 0].any()


def test_likelihood_by_the_change_of_variables_to_noise(examined: Examined) -> None:
    jacobian = examined.noise_jacobian
    logdet = np.array([np.linalg.slogdet(jacobian[b, :, b])[1] for b in range(2)])
    density = sum(scipy.stats.norm.logpdf(part).sum((1, 2, 3)) for part in examined.code.noise)
    np.testing.assert_allclose(examined.code.log_prob, logdet + density, rtol=0, atol=1e-8)


def test_decoding_inverts_encoding(examined: Examined) -> None:
    np.testing.assert_allclose(examined.again, examined.x, rtol=0, atol=1e-10)
    np.testing.assert_allclose(examined.again_from_noise, examined.x, rtol=0, atol=1e-10)


def test_float64_stays_float64(examined: Examined) -> None:
    values = (examined.code, examined.again, examined.again_from_noise)
    assert {leaf.dtype for leaf in jax.tree.leaves(values)} == {np.dtype("float64")}


def test_float32_against_float64(plain: Pair) -> None:
    assert {leaf.dtype for leaf in jax.tree.leaves(plain.code)} == {np.dtype("float32")}
    with jax.enable_x64(True):  # the same float32 parameters, float64 images
        x = plain.x.astype(jnp.float64)
        code = plain.model.encode(x)
        again = plain.model.decode(code.latents)
        assert {leaf.dtype for leaf in jax.tree.leaves((code, again))} == {np.dtype("float64")}
    for single, double in zip(plain.code.latents, code.latents, strict=True):
        np.testing.assert_allclose(single, double, rtol=0, atol=1e-4)
    # 96 values, a likelihood of about 100 nats
    np.testing.assert_allclose(plain.code.log_prob, code.log_prob, rtol=0, atol=1e-3)


def test_log_prob_is_that_of_encode(conditional: Pair) -> None:
    model, x, y, code = conditional
    np.testing.assert_array_equal(model.log_prob(x, y), code.log_prob)


def test_images_do_not_depend_on_their_batch(conditional: Pair) -> None:
    model, x, y, code = conditional
    assert y is not None
    alone = model.encode(x[2:3], y[2:3])
    for one, batch in zip(jax.tree.leaves(alone), jax.tree.leaves(code), strict=True):
        np.testing.assert_allclose(one[0], batch[2], rtol=1e-5, atol=1e-5)


def test_no_parameter_has_a_batch_axis(plain: Pair) -> None:
    fresh = build("affine_lu")
    initialised = initialise_actnorm(fresh, images(fresh, 7))
    before, after = (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), nnx.state(model))
        for model in (fresh, initialised)
    )
    assert before == after
    assert not any(7 in leaf.shape for leaf in jax.tree.leaves(initialised))
    assert initialised.encode(images(fresh, 1)).log_prob.shape == (1,)


def test_labels_move_only_the_top_prior(conditional: Pair) -> None:
    model, x, y, code = conditional
    assert y is not None
    other = model.encode(x, jnp.roll(y, 1, axis=1))
    for one, two in zip(code.latents, other.latents, strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(code.level_log_prob[:, :-1], other.level_log_prob[:, :-1])
    assert np.abs(code.level_log_prob[:, -1] - other.level_log_prob[:, -1]).min() > 1e-3


def test_classify(conditional: Pair) -> None:
    model, _, _, code = conditional
    layer = model.classifier
    assert layer is not None
    kernel, bias, logs = (np.asarray(p[...]) for p in (layer.kernel, layer.bias, layer.logs))
    pooled = np.asarray(code.latents[-1]).mean((1, 2))
    expected = (pooled @ kernel + bias) * np.exp(3 * logs)
    np.testing.assert_allclose(model.classify(code.latents), expected, rtol=1e-5, atol=1e-5)
    top_alone = (*[None] * (len(code.latents) - 1), code.latents[-1])
    np.testing.assert_array_equal(model.classify(top_alone), model.classify(code.latents))


def test_pixels_and_bits_are_those_of_the_models_n_bits() -> None:
    model = build("conditional_shuffle", n_bits=5)
    shape, y = model.config.image_shape, labels(model, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    keys = jax.random.split(jax.random.key(2), 3)
    x = model.dequantize(pixels, keys)
    np.testing.assert_array_equal(x, dequantize(pixels, keys, n_bits=5))
    np.testing.assert_array_equal(model.to_pixels(x), to_pixels(x, n_bits=5))
    expected = bits_per_dim(model.log_prob(x, y), shape, n_bits=5)
    np.testing.assert_array_equal(model.bits_per_dim(x, y), expected)
