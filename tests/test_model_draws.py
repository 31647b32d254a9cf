"""Images from latents that are drawn, and samples."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from small_models import (
    Pair,
    labels,
)


def many(latent: jax.Array, n: int = 64) -> jax.Array:
    return jnp.repeat(latent[:1], n, axis=0)


def test_temperature_0_takes_the_means(plain: Pair) -> None:
    model, _, _, code = plain
    fine, top = code.latents
    for given in ((None, top), (fine, None)):
        x = model.decode(given, temperature=0)
        again = model.encode(x)
        for latent, entry, noise in zip(given, again.latents, again.noise, strict=True):
            if latent is None:
                np.testing.assert_allclose(noise, 0, atol=1e-4)
            else:
                np.testing.assert_allclose(entry, latent, rtol=0, atol=1e-4)
        keyed = model.decode(given, key=jax.random.key(0), temperature=0)
        np.testing.assert_allclose(keyed, x, rtol=0, atol=1e-6)


def test_missing_latents_are_drawn_from_their_priors(plain: Pair) -> None:
    model, _, _, code = plain
    fine, top = code.latents
    for missing, given in enumerate(((None, many(top)), (many(fine), None))):
        draws = {}
        for temperature in (1.0, 0.5):
            x = model.decode(given, key=jax.random.key(3), temperature=temperature)
            again = model.encode(x)
            draws[temperature] = np.asarray(again.noise[missing])
            kept = 1 - missing
            np.testing.assert_allclose(
                again.latents[kept], many(code.latents[kept]), rtol=0, atol=2e-4
            )
        assert scipy.stats.kstest(draws[1.0].ravel(), "norm").pvalue > 0.001
        np.testing.assert_allclose(draws[0.5], 0.5 * draws[1.0], rtol=0, atol=1e-3)


def test_draws_are_a_function_of_the_key(plain: Pair) -> None:
    model, _, _, code = plain
    given = (None, code.latents[-1])
    one, again, other = (model.decode(given, key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01


def test_sample_is_decode_noise_of_scaled_normal_draws(conditional: Pair) -> None:
    model = conditional.model
    y = labels(model, 64)
    x = model.sample(jax.random.key(5), 64, temperature=0.7, y=y)
    assert x.shape == (64, *model.config.image_shape)
    noise = [np.asarray(entry) for entry in model.encode(x, y).noise]
    for entry in noise:
        assert scipy.stats.kstest(entry.ravel() / 0.7, "norm").pvalue > 0.001
    # Levels and images have draws of their own.
    shared = min(entry.size for entry in noise)
    one, other = (entry.ravel()[:shared] for entry in noise)
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(shared)
    one, other = noise[0][:-1].ravel(), noise[0][1:].ravel()
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(one.size)

    np.testing.assert_array_equal(model.sample(jax.random.key(5), 64, temperature=0.7, y=y), x)
    assert np.abs(model.sample(jax.random.key(6), 64, temperature=0.7, y=y) - x).max() > 0.01
    means = model.sample(jax.random.key(5), 64, temperature=0, y=y)
    zeros = tuple(jnp.zeros((64, *shape)) for shape in model.config.latent_shapes)
    np.testing.assert_allclose(means, model.decode_noise(zeros, y), rtol=0, atol=1e-6)
