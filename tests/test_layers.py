"""Every layer: its inverse, its log-determinant, its dtypes and its gradients."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax import nnx
from jax.typing import DTypeLike

from glow_jax.flow import Level, Step
from glow_jax.kernels.products import NetworkWeights
from glow_jax.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Conv1x1,
    Conv1x1LU,
    Reverse,
    Shuffle,
    Split,
    Squeeze,
    ZeroLinear,
)
from glow_jax.layers.convolution import HiddenConv, ZeroConv, conv3x3, formulation, network

pytestmark = pytest.mark.usefixtures("quick_compilation")

B, H, W, C = 2, 4, 6, 4  # oblong, so that swapped axes show
SHAPES = {"level": (B, H, W, 1)}


def step(**options: Any) -> Step:
    defaults: dict[str, Any] = {
        "hidden_channels": 5,
        "flow_permutation": "invconv",
        "flow_coupling": "affine",
        "LU_decomposed": True,
        "actnorm_scale": 0.7,
        "pad_ones": False,
    }
    return Step(C, **{**defaults, **options}, rngs=nnx.Rngs(0))


def level() -> Level:
    # Four channels after the squeeze: test_model.py has wider ones, with 1x1 convolutions.
    def build_step(rngs: nnx.Rngs) -> Step:
        return Step(
            4,
            hidden_channels=5,
            flow_permutation="shuffle",
            flow_coupling="affine",
            LU_decomposed=True,
            actnorm_scale=0.7,
            pad_ones=False,
            rngs=rngs,
        )

    return Level(build_step, K=3, split=None, rngs=nnx.Rngs(0))


def coupling(kind: type, *, pad_ones: bool = False) -> Bijection:
    return kind(C, hidden_channels=5, pad_ones=pad_ones, rngs=nnx.Rngs(0))


LAYERS: dict[str, Callable[[], Bijection]] = {
    "actnorm": lambda: ActNorm(C, scale=0.7),
    "conv1x1": lambda: Conv1x1(C, key=jax.random.key(0)),
    "conv1x1_lu": lambda: Conv1x1LU(C, key=jax.random.key(0)),
    "reverse": Reverse,
    "shuffle": lambda: Shuffle(C, key=jax.random.key(0)),
    "additive_coupling": lambda: coupling(AdditiveCoupling),
    "affine_coupling": lambda: coupling(AffineCoupling),
    "affine_coupling_pad_ones": lambda: coupling(AffineCoupling, pad_ones=True),
    "squeeze": Squeeze,
    "split": lambda: Split(C),
    "split_pad_ones": lambda: Split(C, pad_ones=True),
    "step": step,
    "step_plain_additive": lambda: step(LU_decomposed=False, flow_coupling="additive"),
    "step_shuffle": lambda: step(flow_permutation="shuffle"),
    "step_reverse": lambda: step(flow_permutation="reverse", flow_coupling="additive"),
    "level": level,
}
# Those that hold no linear algebra, which XLA does not do in 16 bits.
WITHOUT_SOLVES = [
    "actnorm",
    "reverse",
    "shuffle",
    "affine_coupling_pad_ones",
    "squeeze",
    "split",
]


def images(dtype: DTypeLike, shape: tuple[int, ...] = (B, H, W, C), seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def flatten(y: Any) -> jax.Array:
    """What a layer gives, per image; a split gives a tuple."""
    parts = [part.reshape(part.shape[0], -1) for part in jax.tree.leaves(y)]
    return jnp.concatenate(parts, axis=1)


class Examined(NamedTuple):
    """A layer with random parameters, and what it does to a batch in float32 and in float64."""

    layer: Bijection
    x: jax.Array
    single: dict[str, Any]
    double: dict[str, Any]


def there_and_back(layer: Bijection, x: jax.Array) -> dict[str, Any]:
    y, logdet = layer.forward(x)
    # Any y will do, not only those that forward gives.
    other = jax.tree.map(lambda part: jnp.flip(part, 0) * 1.5 + 0.1, y)
    return {
        "x": x,
        "y": y,
        "logdet": logdet,
        "x_again": layer.inverse(y),
        "other": other,
        "other_again": layer.forward(layer.inverse(other))[0],
    }


def with_gradients(layer: Bijection, x: jax.Array) -> dict[str, Any]:
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        y, logdet = nnx.merge(graph, params, rest).forward(x)
        return jnp.sum(flatten(y) ** 2) + jnp.sum(logdet * jnp.arange(1, B + 1))

    gradients = jax.grad(loss, argnums=(0, 1))(params, x)
    return {**there_and_back(layer, x), "gradients": gradients}


def with_jacobian(layer: Bijection, x: jax.Array) -> dict[str, Any]:
    jacobian = jax.jacobian(lambda x: flatten(layer.forward(x)[0]))(x)
    return {**there_and_back(layer, x), "jacobian": jacobian.reshape(B, x[0].size, B, x[0].size)}


@pytest.fixture(scope="module", params=LAYERS)
def examined(request: pytest.FixtureRequest, randomise: Any) -> Examined:
    layer = randomise(LAYERS[request.param]())
    x = images(jnp.float32, SHAPES.get(request.param, (B, H, W, C)))
    single = jax.jit(with_gradients)(layer, x)
    with jax.enable_x64(True):
        graph, params, rest = nnx.split(layer, nnx.Param, ...)
        params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        # P is a matrix of floats, the signs are floats: a model built in float64 has such.
        rest = jax.tree.map(
            lambda p: p.astype(jnp.float64) if jnp.issubdtype(p.dtype, jnp.floating) else p, rest
        )
        double = jax.jit(with_jacobian)(nnx.merge(graph, params, rest), x.astype(jnp.float64))
    return Examined(layer, x, single, double)


def test_inverse_undoes_forward(examined: Examined) -> None:
    for results, tolerance in ((examined.single, 1e-5), (examined.double, 1e-12)):
        np.testing.assert_allclose(results["x_again"], results["x"], rtol=0, atol=tolerance)


def test_forward_undoes_inverse(examined: Examined) -> None:
    for results, tolerance in ((examined.single, 1e-5), (examined.double, 1e-12)):
        again, other = jax.tree.leaves(results["other_again"]), jax.tree.leaves(results["other"])
        for one, two in zip(again, other, strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=tolerance)


def test_logdet_is_that_of_the_jacobian(examined: Examined) -> None:
    jacobian = np.asarray(examined.double["jacobian"])
    expected = [np.linalg.slogdet(jacobian[b, :, b])[1] for b in range(B)]
    np.testing.assert_allclose(examined.double["logdet"], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(examined.single["logdet"], expected, rtol=0, atol=1e-4)


def test_images_of_a_batch_do_not_see_each_other(examined: Examined) -> None:
    jacobian = np.asarray(examined.double["jacobian"])
    assert not jacobian[0, :, 1].any()
    assert not jacobian[1, :, 0].any()


def test_the_dtype_of_the_input_is_kept(examined: Examined) -> None:
    for results, dtype in ((examined.single, "float32"), (examined.double, "float64")):
        assert results["logdet"].shape == (B,)
        values = [results[name] for name in ("y", "logdet", "x_again", "other_again")]
        assert {leaf.dtype for leaf in jax.tree.leaves(values)} == {np.dtype(dtype)}


def test_gradients_are_finite_and_reach_every_parameter(examined: Examined) -> None:
    leaves = jax.tree.leaves_with_path(examined.single["gradients"])
    assert leaves
    for path, gradient in leaves:
        where = jax.tree_util.keystr(path)
        assert np.isfinite(gradient).all(), where
        assert np.any(gradient), where


def test_compiled_and_uncompiled_agree(examined: Examined) -> None:
    y, logdet = examined.layer.forward(examined.x)
    compiled = examined.single
    np.testing.assert_allclose(flatten(y), flatten(compiled["y"]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(logdet, compiled["logdet"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", WITHOUT_SOLVES)
def test_half_precision_sums_logdet_in_float32(name: str, dtype: Any, randomise: Any) -> None:
    graph, params, rest = nnx.split(randomise(LAYERS[name]()), nnx.Param, ...)
    x = images(dtype)
    low = nnx.merge(graph, jax.tree.map(lambda p: p.astype(dtype), params), rest)
    y, logdet = jax.jit(lambda layer, x: layer.forward(x))(low, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(y)} == {np.dtype(dtype)}
    assert logdet.shape == (B,)
    assert logdet.dtype == jnp.float32
    rounded = jax.tree.map(lambda p: p.astype(dtype).astype(jnp.float32), params)
    _, expected = nnx.merge(graph, rounded, rest).forward(x.astype(jnp.float32))
    # An actnorm's is a sum of parameters alone; a network's values carry 16-bit errors themselves.
    tolerance = 1e-6 if name == "actnorm" else 0.05
    np.testing.assert_allclose(logdet, expected, rtol=tolerance, atol=0.1 * (name != "actnorm"))


# What the layers compute, by hand.


def test_actnorm() -> None:
    layer = ActNorm(2)
    layer.bias[...] = jnp.array([1.0, -2.0])
    layer.logs[...] = jnp.log(jnp.array([2.0, 0.5]))
    y, logdet = layer.forward(jnp.array([[[[3.0, 4.0]], [[-1.0, 0.0]]]]))
    np.testing.assert_allclose(y, [[[[8.0, 1.0]], [[0.0, -1.0]]]], rtol=1e-6)
    np.testing.assert_allclose(logdet, [2 * (np.log(2) + np.log(0.5))], atol=1e-6)


def test_actnorm_initialisation() -> None:
    layer = ActNorm(3, scale=0.7)
    x = images(jnp.float32, (5, 4, 4, 3)) * jnp.array([0.1, 5.0, 0.0]) + jnp.array([7.0, -3.0, 2.0])
    y = np.asarray(layer.initialise(x))
    np.testing.assert_array_equal(y, layer.forward(x)[0])
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 1, 2)), [0.7, 0.7, 0.0], rtol=1e-4)
    deviation = np.asarray(x, np.float64).std((0, 1, 2))
    np.testing.assert_allclose(layer.logs[...], np.log(0.7 / (deviation + 1e-6)), rtol=1e-4)


def test_conv1x1_multiplies_every_position_by_its_matrix() -> None:
    layer = Conv1x1(C, key=jax.random.key(0))
    x = images(jnp.float32)
    weight = np.asarray(layer.weight[...])
    np.testing.assert_allclose(weight @ weight.T, np.eye(C), atol=1e-6)  # starts as a rotation
    expected = np.einsum("oi,bhwi->bhwo", weight, x)
    np.testing.assert_allclose(layer.forward(x)[0], expected, atol=1e-5)


def test_conv1x1_lu_starts_as_the_same_rotation() -> None:
    plain, factored = (kind(C, key=jax.random.key(3)) for kind in (Conv1x1, Conv1x1LU))
    x = images(jnp.float32)
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
    x = images(jnp.float32)
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
    x = images(jnp.float32, (4, 8, 8, channels))
    y, _ = layer.forward(x)
    solved = jnp.linalg.solve(layer._weight(), y.reshape(-1, channels).T).T.reshape(x.shape)
    error = float(jnp.abs(layer.inverse(y) - x).max())
    assert error < 2 * float(jnp.abs(solved - x).max())


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
    x = images(jnp.float32)
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
        x = images(jnp.float32, (2, 3, 3, 2) if isinstance(layer, ZeroConv) else (2, 2))
        assert not layer(x).any()
        layer.bias[...] = jnp.array([1.0, -2.0])
        layer.logs[...] = jnp.array([0.5, -0.1])
        expected = np.broadcast_to([np.exp(1.5), -2 * np.exp(-0.3)], x.shape)
        np.testing.assert_allclose(layer(x), expected, rtol=1e-6)


# Convolutions.

CONVOLUTIONS = {"more_outputs": (2, 7), "fewer_outputs": (7, 2), "one": (1, 1)}


def correlate(x: np.ndarray, kernel: np.ndarray, fill: int = 0) -> np.ndarray:
    """A padded 3x3 convolution by scipy, one pair of channels at a time."""
    y = np.zeros((*x.shape[:3], kernel.shape[3]))
    for b, i, o in np.ndindex(x.shape[0], *kernel.shape[2:]):
        y[b, :, :, o] += scipy.signal.correlate2d(
            x[b, :, :, i], kernel[:, :, i, o], mode="same", fillvalue=fill
        )
    return y


@pytest.mark.parametrize("channels", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_both_formulations_agree_with_each_other_and_with_scipy(channels: Any) -> None:
    x, kernel = images(jnp.float32, (2, 5, 4, channels[0])), images(jnp.float32, (3, 3, *channels))
    weights = images(jnp.float32, (2, 5, 4, channels[1]), seed=2)

    def evaluate(name: Any) -> Any:
        def run(x: jax.Array, kernel: jax.Array) -> Any:
            y = conv3x3(x, kernel)
            return jnp.sum(y * weights), y

        with formulation(name):
            (_, y), gradients = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))(
                x, kernel
            )
            # A fresh function: JAX keeps what it once traced.
            program = str(jax.make_jaxpr(lambda *inputs: conv3x3(*inputs))(x, kernel))
        assert ("conv_general_dilated" in program) == (name == "convolution")
        return y, *gradients

    by_product, by_convolution = evaluate("matmul"), evaluate("convolution")
    for one, other in zip(by_product, by_convolution, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    expected = correlate(np.asarray(x, np.float64), np.asarray(kernel, np.float64))
    np.testing.assert_allclose(by_product[0], expected, rtol=1e-5, atol=1e-5)
    # The gradient is linear in the weights, so it follows from the forward map of unit vectors.
    direction = images(jnp.float32, x.shape, seed=3)
    moved = correlate(np.asarray(direction, np.float64), np.asarray(kernel, np.float64))
    np.testing.assert_allclose(
        np.sum(np.asarray(by_product[1]) * direction), np.sum(moved * weights), rtol=1e-4, atol=1e-3
    )


def as_type(weights: NetworkWeights, dtype: jnp.dtype) -> NetworkWeights:
    return jax.tree.map(lambda part: part.astype(dtype), weights)


@pytest.mark.parametrize("shape", [(2, 5, 4), (3, 1, 6)], ids=["oblong", "one_row"])
@pytest.mark.parametrize("channels", [(2, 7, 4), (5, 3, 6)], ids=["wide", "narrow"])
@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-5), ("float64", 1e-12)])
def test_both_formulations_of_a_network_agree_with_scipy(
    channels: tuple[int, int, int], shape: tuple[int, int, int], dtype: str, apart: float, x64: None
) -> None:
    inputs, hidden, outputs = channels
    x, v = (images(dtype, (*shape, n), seed=n) for n in (inputs, outputs))
    weights = NetworkWeights(
        images(dtype, (3, 3, inputs, hidden), 2),
        images(dtype, (hidden,), 3),
        images(dtype, (hidden, hidden), 4),
        images(dtype, (hidden,), 5),
        images(dtype, (3, 3, hidden, outputs), 6),
    )

    def evaluate(name: Any) -> Any:
        def run(x: jax.Array, weights: NetworkWeights) -> Any:
            y = network(as_type, x, weights)
            return jnp.sum(y * v), y

        with formulation(name):
            return jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))(x, weights)

    by_product, by_convolution = evaluate("matmul"), evaluate("convolution")
    pairs = zip(jax.tree.leaves(by_product), jax.tree.leaves(by_convolution), strict=True)
    for one, other in pairs:
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=apart * float(jnp.abs(other).max()))
    kernel_in, bias_in, kernel, bias, kernel_out = (np.asarray(w, np.float64) for w in weights)
    h = np.maximum(correlate(np.asarray(x, np.float64), kernel_in) + bias_in, 0)
    expected = correlate(np.maximum(h @ kernel + bias, 0), kernel_out)
    np.testing.assert_allclose(
        by_product[0][1], expected, rtol=0, atol=apart * np.abs(expected).max()
    )


def test_the_formulation_is_restored() -> None:
    x, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))

    def program() -> str:
        return str(jax.make_jaxpr(lambda *inputs: conv3x3(*inputs))(x, kernel))

    before = program()
    with contextlib.suppress(RuntimeError), formulation("convolution"):
        assert "conv_general_dilated" in program()
        raise RuntimeError
    assert program() == before


@pytest.mark.parametrize("name", ["matmul", "convolution"])
@pytest.mark.parametrize("channels", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_padding_with_ones(channels: Any, name: Any, randomise: Any, x64: None) -> None:
    layer = randomise(ZeroConv(*channels, pad_ones=True))
    x = images(jnp.float64, (2, 5, 4, channels[0]))
    with formulation(name):
        y = layer(x)
    kernel, bias, logs = (np.asarray(p[...]) for p in (layer.kernel, layer.bias, layer.logs))
    expected = (correlate(np.asarray(x), kernel, fill=1) + bias) * np.exp(3 * logs)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


def test_hidden_convolutions_are_drawn_with_deviation_005_and_have_no_bias() -> None:
    layer = HiddenConv(16, 64, size=3, key=jax.random.key(0))
    kernel = np.asarray(layer.kernel[...])
    assert kernel.shape == (3, 3, 16, 64)
    assert abs(kernel.mean()) < 0.003  # its standard error is 0.0005
    assert abs(kernel.std() - 0.05) < 0.002
    assert not layer(jnp.zeros((1, 4, 4, 16))).any()
    assert len(jax.tree.leaves(nnx.state(layer))) == 1
