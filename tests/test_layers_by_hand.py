"""What the layers compute, by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from glow_jax.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Conv1x1,
    Conv1x1LU,
    Reverse,
    Shuffle,
    Split,
    Squeeze,
    ZeroLinear,
)
from glow_jax.layers.convolution import ZeroConv

B, H, W, C = 2, 4, 6, 4  # oblong, so that swapped axes show


def images(shape: tuple[int, ...] = (B, H, W, C)) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def coupling(kind: type[AdditiveCoupling] | type[AffineCoupling]) -> Any:
    return kind(C, hidden_channels=5, padding="zeros", rngs=nnx.Rngs(0))


def test_actnorm() -> None:
    layer = ActNorm(2)
    layer.bias[...] = jnp.array([1.0, -2.0])
    layer.logs[...] = jnp.log(jnp.array([2.0, 0.5]))
    y, logdet = layer.forward(jnp.array([[[[3.0, 4.0]], [[-1.0, 0.0]]]]))
    np.testing.assert_allclose(y, [[[[8.0, 1.0]], [[0.0, -1.0]]]], rtol=1e-6)
    np.testing.assert_allclose(logdet, [2 * (np.log(2) + np.log(0.5))], atol=1e-6)


def test_actnorm_initialisation() -> None:
    layer = ActNorm(3, scale=0.7)
    x = images((5, 4, 4, 3)) * jnp.array([0.1, 5.0, 0.0]) + jnp.array([7.0, -3.0, 2.0])
    y = np.asarray(layer.initialise(x))
    np.testing.assert_array_equal(y, layer.forward(x)[0])
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 1, 2)), [0.7, 0.7, 0.0], rtol=1e-4)
    deviation = np.asarray(x, np.float64).std((0, 1, 2))
    np.testing.assert_allclose(layer.logs[...], np.log(0.7 / (deviation + 1e-6)), rtol=1e-4)


def test_conv1x1_multiplies_every_position_by_its_matrix() -> None:
    layer = Conv1x1(C, key=jax.random.key(0))
    x = images()
    weight = np.asarray(layer.weight[...])
    np.testing.assert_allclose(weight @ weight.T, np.eye(C), atol=1e-6)  # starts as a rotation
    expected = np.einsum("oi,bhwi->bhwo", weight, x)
    np.testing.assert_allclose(layer.forward(x)[0], expected, atol=1e-5)


def test_conv1x1_lu_starts_as_the_same_rotation() -> None:
    plain, factored = (kind(C, key=jax.random.key(3)) for kind in (Conv1x1, Conv1x1LU))
    x = images()
    np.testing.assert_allclose(factored.forward(x)[0], plain.forward(x)[0], atol=1e-5)


def test_conv1x1_lu_masks_its_stored_factors() -> None:
    layer = Conv1x1LU(C, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    lower, upper = rng.standard_normal((2, C, C)).astype(np.float32)
    log_s = rng.standard_normal(C).astype(np.float32)
    layer.lower[...], layer.upper[...], layer.log_s[...] = map(jnp.asarray, (lower, upper, log_s))
    matrix = np.asarray(layer.permutation[...]).astype(np.float64)
    matrix = matrix @ (np.tril(lower, -1) + np.eye(C))
    matrix = matrix @ (np.triu(upper, 1) + np.diag(np.asarray(layer.sign[...]) * np.exp(log_s)))
    x = images()
    np.testing.assert_allclose(
        layer.forward(x)[0], np.einsum("oi,bhwi->bhwo", matrix, x), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4])
@pytest.mark.parametrize("kind", [Conv1x1, Conv1x1LU])
def test_a_badly_conditioned_conv1x1_inverts_as_exactly_as_by_solving(
    kind: type, condition: float
) -> None:
    channels = 48
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((channels, channels)))[0] for _ in range(2))
    matrix = jnp.asarray((left * np.geomspace(1, 1 / condition, channels)) @ right, jnp.float32)
    layer = kind(channels, key=jax.random.key(0))
    if isinstance(layer, Conv1x1LU):
        permutation, lower, upper = jax.scipy.linalg.lu(matrix)
        diagonal = jnp.diagonal(upper)
        layer.permutation[...], layer.lower[...], layer.upper[...] = permutation, lower, upper
        layer.sign[...], layer.log_s[...] = jnp.sign(diagonal), jnp.log(jnp.abs(diagonal))
    else:
        layer.weight[...] = matrix
    x = images((4, 8, 8, channels))
    y, _ = layer.forward(x)
    solved = jnp.linalg.solve(layer._weight(), y.reshape(-1, channels).T).T.reshape(x.shape)
    error = float(jnp.abs(layer.inverse(y) - x).max())
    assert error < 2 * float(jnp.abs(solved - x).max())


@pytest.mark.parametrize("kind", [Conv1x1, Conv1x1LU])
def test_derivatives_of_a_conv1x1_beside_those_of_its_definition(kind: type) -> None:
    with jax.enable_x64(True):
        layer = jax.tree.map(lambda leaf: leaf.astype(float), kind(5, key=jax.random.key(0)))
        graph, params, buffers = nnx.split(layer, nnx.Param, ...)
        y = images((2, 3, 3, 5)).astype(float)

        def both(params: nnx.State) -> jax.Array:
            layer = nnx.merge(graph, params, buffers)
            return layer.forward(y)[1][0] + jnp.sum(layer.inverse(y) ** 2)

        def defined(params: nnx.State) -> jax.Array:
            weight = nnx.merge(graph, params, buffers)._weight()
            solved = jnp.linalg.solve(weight, y.reshape(-1, 5).T)
            return 9 * jnp.linalg.slogdet(weight)[1] + jnp.sum(solved**2)

        for order in (jax.grad, jax.hessian):
            found, expected = (jax.tree.leaves(order(f)(params)) for f in (both, defined))
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7)


def test_permutations() -> None:
    x = jnp.arange(4.0).reshape(1, 1, 1, 4)
    np.testing.assert_array_equal(Reverse().forward(x)[0].ravel(), [3, 2, 1, 0])
    shuffle = Shuffle(4, key=jax.random.key(0))
    shuffle.indices[...] = jnp.array([2, 0, 3, 1])
    np.testing.assert_array_equal(shuffle.forward(x)[0].ravel(), [2, 0, 3, 1])
    np.testing.assert_array_equal(shuffle.inverse(x).ravel(), [1, 3, 0, 2])
    drawn = Shuffle(64, key=jax.random.key(0)).indices[...]
    np.testing.assert_array_equal(np.sort(drawn), np.arange(64))
    assert not np.array_equal(drawn, np.arange(64))


def test_squeeze_puts_channel_c_row_i_column_j_at_4c_2i_j() -> None:
    # A pixel's value is row, column, channel as decimal digits.
    row, column, channel = np.indices((4, 4, 2))
    x = jnp.asarray(100 * row + 10 * column + channel, jnp.float32)[None]
    y, _ = Squeeze().forward(x)
    assert y.shape == (1, 2, 2, 8)
    np.testing.assert_array_equal(y[0, 0, 0], [0, 10, 100, 110, 1, 11, 101, 111])
    np.testing.assert_array_equal(y[0, 1, 0], [200, 210, 300, 310, 201, 211, 301, 311])
    np.testing.assert_array_equal(y[0, 0, 1], [20, 30, 120, 130, 21, 31, 121, 131])


def network_with_bias(layer: Any, bias: list[float]) -> Any:
    """A coupling whose network gives `bias` whatever its input."""
    layer.network.conv_out.bias[...] = jnp.array(bias)
    return layer


def test_additive_coupling_moves_the_second_half() -> None:
    layer = network_with_bias(coupling(AdditiveCoupling), [10.0, 20.0])
    y, logdet = layer.forward(jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4))
    np.testing.assert_array_equal(y.ravel(), [1, 2, 13, 24])
    np.testing.assert_array_equal(logdet, [0])


def test_affine_coupling_shifts_by_even_and_scales_by_odd_channels() -> None:
    layer = network_with_bias(coupling(AffineCoupling), [10.0, -2.0, 20.0, 1.0])
    y, logdet = layer.forward(jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4))
    scales = [1 / (1 + np.exp(0.0)), 1 / (1 + np.exp(-3.0))]  # sigmoid(scale + 2)
    np.testing.assert_allclose(y.ravel(), [1, 2, 13 * scales[0], 24 * scales[1]], rtol=1e-6)
    np.testing.assert_allclose(logdet, [np.sum(np.log(scales))], rtol=1e-6)


def test_coupling_networks_see_the_first_half_only(randomise: Any) -> None:
    layer = randomise(coupling(AffineCoupling))
    x = images()
    changed = x.at[..., C // 2 :].add(1.0)
    np.testing.assert_array_equal(layer.forward(x)[1], layer.forward(changed)[1])
    assert np.abs(layer.forward(x)[1] - layer.forward(-x)[1]).max() > 1e-3


def test_split_keeps_the_first_half_and_whitens_the_second() -> None:
    layer = Split(4)
    layer.conv.bias[...] = jnp.array([10.0, 0.5, 20.0, -1.0])  # mean, log sd, mean, log sd
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    (kept, noise), logdet = layer.forward(x)
    np.testing.assert_array_equal(kept.ravel(), [1, 2])
    np.testing.assert_allclose(noise.ravel(), [-7 / np.exp(0.5), -16 / np.exp(-1)], rtol=1e-6)
    np.testing.assert_allclose(logdet, [-(0.5 - 1.0)], rtol=1e-6)
    kept, latent, prior = layer.factor(x)
    np.testing.assert_array_equal(latent.ravel(), [3, 4])
    np.testing.assert_array_equal(prior.mean.ravel(), [10, 20])
    np.testing.assert_array_equal(prior.logs.ravel(), [0.5, -1])


def test_zero_layers_start_at_zero_and_scale_by_exp_3_logs() -> None:
    for layer in (ZeroConv(2, 2), ZeroLinear(2, 2)):
        x = images((2, 3, 3, 2) if isinstance(layer, ZeroConv) else (2, 2))
        assert not layer(x).any()
        layer.bias[...] = jnp.array([1.0, -2.0])
        layer.logs[...] = jnp.array([0.5, -0.1])
        expected = np.broadcast_to([np.exp(1.5), -2 * np.exp(-0.3)], x.shape)
        np.testing.assert_allclose(layer(x), expected, rtol=1e-6)
