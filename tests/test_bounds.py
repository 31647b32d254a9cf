"""The bounds on a model so small that its likelihood can be integrated."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from glow_jax import Glow, ModelConfig, initialise_actnorm
from glow_jax.evaluation.importance import ImportanceBounds
from glow_jax.evaluation.likelihood import Likelihood
from glow_jax.model import with_uniform_dequantization

DRAWS = 2000
STEPS = 300


class Toy(NamedTuple):
    """A model trained with variational noise on all images of 2 x 2 pixels of one bit.

    Attributes:
        model: the model.
        images: every image, (16, 2, 2, 1).
        shares: how often each occurs, (16,).
        exact: their bits/dim by integration, (16,).
    """

    model: Glow
    images: np.ndarray
    shares: np.ndarray
    exact: np.ndarray


@pytest.fixture(scope="module")
def toy() -> Toy:
    config = ModelConfig(
        K=2,
        L=1,
        hidden_channels=16,
        image_shape=(2, 2, 1),
        n_bits=1,
        dequantization="variational",
    )
    bits = (np.arange(16)[:, None] >> np.arange(4)) & 1
    images = (255 * bits).astype(np.uint8).reshape(16, 2, 2, 1)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(16, 0.5))
    model = jax.jit(lambda key: Glow(config, rngs=nnx.Rngs(key)))(jax.random.key(0))
    model = trained(model, images[rng.choice(16, 256, p=shares)])
    exact = integrated(model, images, nodes=14)
    # Kinks of ReLUs limit the quadrature, not its number of nodes.
    np.testing.assert_allclose(integrated(model, images, nodes=10), exact, rtol=0, atol=0.01)
    assert 0.9 < np.sum(2.0 ** (-4 * exact)) < 1  # the rest lies outside of the bins
    return Toy(model, images, shares, exact)


def trained(model: Glow, pixels: np.ndarray) -> Glow:
    model = initialise_actnorm(model, model.dequantize(pixels, jax.random.key(2)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, STEPS))

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        params, state = carry
        x = model.dequantize(pixels, key)
        gradient = jax.grad(lambda p: nnx.merge(graph, p, rest).bits_per_dim(x).mean())(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), STEPS)
    start = (params, optimizer.init(params))
    (params, _), _ = jax.jit(lambda start, keys: jax.lax.scan(step, start, keys))(start, keys)
    return nnx.merge(graph, params, rest)


def integrated(model: Glow, images: np.ndarray, nodes: int) -> np.ndarray:
    """Bits/dim of discrete images: the density integrated over their bins, by Gauss-Legendre."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    grid = np.stack(np.meshgrid(*[(places + 1) / 4] * 4, indexing="ij"), axis=-1)
    volume = np.stack(np.meshgrid(*[weights / 4] * 4, indexing="ij"), axis=-1).prod(axis=-1)
    found = []
    for image in images:
        x = (image // 255) * 0.5 - 0.5 + grid.reshape(-1, 2, 2, 1)
        density = np.exp(np.asarray(model.log_prob(jnp.asarray(x, jnp.float32)), np.float64))
        found.append(-np.log2(np.sum(volume.ravel() * density)) / 4)
    return np.array(found)


def bounds(model: Glow, images: np.ndarray) -> np.ndarray:
    """Bits/dim of many draws of the noise, (16, DRAWS)."""
    x = model.dequantize(np.repeat(images, DRAWS, axis=0), jax.random.key(3))
    return np.asarray(model.bits_per_dim(x), np.float64).reshape(len(images), DRAWS)


@pytest.mark.slow
def test_the_variational_bound_lies_between_the_likelihood_and_the_uniform_bound(toy: Toy) -> None:
    variational = bounds(toy.model, toy.images)
    error = np.sqrt(toy.shares**2 @ (variational.var(axis=1) / DRAWS))
    gap = toy.shares @ (variational.mean(axis=1) - toy.exact)
    assert 5 * error < gap < 0.05
    # Of every image, too.
    errors = variational.std(axis=1) / np.sqrt(DRAWS)
    assert np.all(variational.mean(axis=1) > toy.exact - 4 * errors)
    uniform = bounds(with_uniform_dequantization(toy.model), toy.images)
    assert toy.shares @ uniform.mean(axis=1) > toy.shares @ variational.mean(axis=1) + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["variational", "uniform"])
def test_importance_weighted_bounds_fall_to_the_exact_likelihood(kind: str, toy: Toy) -> None:
    model = toy.model if kind == "variational" else with_uniform_dequantization(toy.model)
    draws = bounds(model, toy.images)
    importance = ImportanceBounds(DRAWS, dimensions=4)
    for bits in draws.T:
        importance.add(Likelihood(bits, bits[:, None]))
    found = {size: bound.bits_per_dim for size, bound in importance.found().items()}
    assert list(found) == [1, 10, 100, 1000, 2000]
    # Of each image: the same draws, and the logarithm is concave.
    for few, more in zip(list(found)[:-1], list(found)[1:], strict=True):
        assert np.all(found[few] >= found[more])
    np.testing.assert_allclose(found[1], draws.mean(axis=1), rtol=1e-12)
    assert toy.shares @ found[1] > toy.shares @ toy.exact + 0.01
    # 2000 draws of uniform noise are 12 points in each of 4 dimensions.
    tolerance = 2e-3 if kind == "variational" else 0.05
    assert toy.shares @ found[2000] == pytest.approx(toy.shares @ toy.exact, abs=tolerance)


def test_importance_weighted_bounds_by_hand() -> None:
    weights = np.array([[0.5, 0.25], [0.125, 2.0**-60], [0.25, 0.25]])  # of 3 draws and 2 images
    importance = ImportanceBounds(2, dimensions=3)
    for draw in weights:
        importance.add(Likelihood(-np.log2(draw) / 3, np.zeros((2, 1))))
    found = importance.found()
    assert list(found) == [1, 2]
    np.testing.assert_allclose(found[1].bits_per_dim, -np.log2(weights).mean(axis=0) / 3)
    expected = -np.log2(weights[:2].mean(axis=0)) / 3  # the third draw fills no group of 2
    np.testing.assert_allclose(found[2].bits_per_dim, expected, rtol=1e-14)
    assert found[2].standard_error == pytest.approx(abs(expected[0] - expected[1]) / 2)


def test_weights_too_small_for_a_float_count() -> None:
    importance = ImportanceBounds(2, dimensions=784)
    for bits in (3.0, 3.001):
        importance.add(Likelihood(np.array([bits]), np.zeros((1, 1))))
    expected = 3.0 - np.log2((1 + 2 ** (-0.001 * 784)) / 2) / 784
    assert importance.found()[2].bits_per_dim[0] == pytest.approx(expected, abs=1e-13)
