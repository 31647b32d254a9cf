"""Scores that are fitted to training images, against other computations of the same."""

import math

import jax
import numpy as np
import pytest
import scipy.stats
from flax import nnx
from ood_runs import untrained
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from glow_jax.data import InMemory
from glow_jax.data.batching import Batch
from glow_jax.devices import Devices
from glow_jax.ood import fitted
from glow_jax.ood.dimension import lid_meter
from glow_jax.ood.images import Images
from glow_jax.ood.measure import layer_norm_meter, replicated_model
from glow_jax.pixels import dequantize, example_keys

Measured = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def draw(count: int, seed: int) -> Measured:
    """Bits/dim, two levels' shares, PNG lengths and gradient norms of images."""
    random = np.random.default_rng(seed)
    shares = random.normal([1, 2], 0.3, (count, 2))
    png = random.normal(5, 1, count)
    return shares.sum(axis=1), shares, png, np.exp(random.normal(3, 0.2, count))


def statistics(measured: Measured) -> np.ndarray:
    bits, shares, png, norm = measured
    return np.stack([bits, *shares.T, png - bits, np.log(norm)], axis=1)


def test_dose_by_densities_is_the_sum_of_their_logs() -> None:
    training, tested = draw(300, 0), draw(20, 1)
    tested[2][0] = 60  # a length of which no training image comes near
    points, others = statistics(training), statistics(tested)
    expected = np.zeros(20)
    for known, values in zip(points.T, others.T, strict=True):
        width = 300 ** (-1 / 5)
        distances = (values[:, None] - known) / known.std() / width
        logs = -(distances**2) / 2 - math.log(width * math.sqrt(2 * math.pi) * 300)
        expected += np.logaddexp.reduce(logs, axis=1)
    found = fitted.dose(*tested, fitted.fit_dose_kde(*training))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert found.argmin() == 0


def test_dose_by_a_support_vector_machine_is_scikit_learns() -> None:
    training, tested = draw(200, 0), draw(20, 1)
    scaler = StandardScaler().fit(statistics(training))
    machine = OneClassSVM().fit(scaler.transform(statistics(training)))
    expected = machine.decision_function(scaler.transform(statistics(tested)))
    found = fitted.dose(*tested, fitted.fit_dose_svm(*training))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("fit", [fitted.fit_dose_kde, fitted.fit_dose_svm])
def test_statistics_that_are_not_finite_are_the_least_typical(fit) -> None:
    training, tested = draw(50, 0), draw(5, 1)
    expected = fitted.dose(*tested, fit(*training))
    with_infinity = [np.concatenate([part, part[:1]]) for part in training]
    with_infinity[0][-1] = np.inf
    tested[0][1], tested[3][2], tested[2][3] = np.inf, 0, np.nan
    found = fitted.dose(*tested, fit(*with_infinity))
    assert np.isneginf(found[1:4]).all()
    np.testing.assert_allclose(found[[0, 4]], expected[[0, 4]])
    bits, shares, png, norms = (part[1:2] for part in tested)
    nothing = fitted.dose(bits, shares, png, norms, fit(*training))
    assert np.isneginf(nothing).all()


def test_layer_norms_are_log_densities_of_normal_distributions() -> None:
    random = np.random.default_rng(0)
    training, tested = (np.exp(random.normal([0, 5, 1], [1, 0.1, 0.5], (n, 3))) for n in (99, 7))
    logs = np.log(training**2)
    expected = scipy.stats.norm.logpdf(np.log(tested**2), logs.mean(axis=0), logs.std(0, ddof=1))
    fit = fitted.fit_layer_norms(training)
    np.testing.assert_allclose(fitted.layer_norms(tested, fit), expected.sum(axis=1))
    # A layer without a gradient, and one whose gradient is always the same, tell nothing.
    more = [
        np.column_stack([part, np.zeros(len(part)), np.ones(len(part))])
        for part in (training, tested)
    ]
    fit = fitted.fit_layer_norms(more[0])
    np.testing.assert_allclose(fitted.layer_norms(more[1], fit), expected.sum(axis=1))
    tested[3, 1] = 0
    assert np.isneginf(fitted.layer_norms(tested, fitted.fit_layer_norms(training))[3])


@pytest.mark.slow
def test_each_parameter_of_each_step_is_a_layer(randomise) -> None:
    model = randomise(untrained(), seed=1, scale=0.1)
    flow = replicated_model(Devices(1), model, step=0, dtype="float32", precision="highest")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    indices = np.arange(3, dtype=np.uint32)
    batch = Batch(images, np.empty((3, 0), np.float32), indices)
    found = layer_norm_meter(flow).measure(batch, 4)["layer_gradient_norms"]
    x = dequantize(images, example_keys(0, 0, indices), n_bits=4)
    graph, params, buffers = nnx.split(model, nnx.Param, ...)
    for number in range(3):

        def log_prob(params: nnx.State, number: int = number) -> jax.Array:
            return nnx.merge(graph, params, buffers).log_prob(x)[number]

        gradient = jax.tree.leaves_with_path(jax.grad(log_prob)(params))
        expected = []
        for path, leaf in gradient:
            steps = leaf if "steps" in jax.tree_util.keystr(path) else leaf[None]
            expected += [np.linalg.norm(step) for step in np.asarray(steps)]
        np.testing.assert_allclose(sorted(found[number]), sorted(expected), rtol=1e-4, atol=1e-5)


def test_likelihood_and_dimension_by_hand() -> None:
    # Of the six singular values of two training images, as many lie above the scale as their
    # neighbourhoods have dimensions: three.
    training = np.array([3.0, 2.0]), np.array([[9.0, 8, 1], [7, 2, 1]]), np.array([1.0, 2.0])
    fit = fitted.fit_lid(*training)
    assert fit.scale == 2
    np.testing.assert_array_equal(fit.dimensions, [1, 2])
    bits = np.array([2.0, 2.5, 2.0, 4.0, np.nan])
    values = np.array([[9.0, 9, 9], [9, 9, 9], [9, 1, 1], [9, 9, 9], [np.nan] * 3])
    # As likely as the likeliest; as one of two; as narrow as the narrower; less likely than both.
    score = fitted.lid_score(bits, values, np.zeros(5), fit)
    np.testing.assert_array_equal(score, [1, 0.5, 0.5, 0, 0])


@pytest.mark.slow
def test_singular_values_are_those_of_the_decoder(randomise) -> None:
    model = randomise(untrained(), seed=1, scale=0.1)
    flow = replicated_model(Devices(1), model, step=0, dtype="float32", precision="highest")
    random = np.random.default_rng(0)
    # Training images differ by two things: an overall brightness and the first row's.
    light = random.integers(20, 100, (60, 2)).astype(np.uint8)
    known = np.repeat(light[:, :1], 64, axis=1).reshape(60, 8, 8, 1)
    known[:, 0] += light[:, 1, None, None]
    training = Images("known", "training", InMemory(known, np.empty((60, 0), np.int32)))
    images = random.integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    indices = np.arange(2, dtype=np.uint32)
    meter = lid_meter(flow, training, most=2)
    found = meter.measure(Batch(images, np.empty((2, 0), np.float32), indices), 2)
    assert set(found) == set(meter.gives)
    np.testing.assert_array_equal(found["neighbourhood_dimension"], [2, 2])
    x = dequantize(images, example_keys(0, 0, indices), n_bits=4)
    noise = model.encode(x).noise
    for number in range(2):
        one = tuple(part[number : number + 1] for part in noise)
        jacobian = jax.jacrev(lambda *parts: model.decode_noise(parts).reshape(64), tuple(range(2)))
        parts = [np.asarray(part, np.float64).reshape(64, -1) for part in jacobian(*one)]
        expected = np.linalg.svd(np.concatenate(parts, axis=1), compute_uv=False)
        np.testing.assert_allclose(found["singular_values"][number], expected, rtol=1e-3)
        assert expected[0] > 1.05 * expected[-1]
