"""Convolutions and the network made of them, each however it is computed."""

import re
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax import nnx
from jax.typing import DTypeLike

from glow_jax.kernels.gpu import network_gradient_on_gpu
from glow_jax.kernels.products import Precision, conv3x3_of_few_outputs
from glow_jax.layers.convolution import (
    Formulation,
    HiddenConv,
    Padding,
    ZeroConv,
    conv3x3,
    conv3x3_as,
)
from glow_jax.layers.network import CouplingNetwork, convolutions


def images(dtype: DTypeLike, shape: tuple[int, ...], seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


CONVOLUTIONS = {"more_outputs": (2, 7), "fewer_outputs": (7, 2), "one": (1, 1)}


def correlate(x: np.ndarray, kernel: np.ndarray, fill: int = 0) -> np.ndarray:
    """A padded 3x3 convolution by scipy, one pair of channels at a time."""
    y = np.zeros((*x.shape[:3], kernel.shape[3]))
    for b, i, o in np.ndindex(x.shape[0], *kernel.shape[2:]):
        y[b, :, :, o] += scipy.signal.correlate2d(
            x[b, :, :, i], kernel[:, :, i, o], mode="same", fillvalue=fill
        )
    return y


FORMULATIONS: tuple[Formulation, ...] = ("products", "convolution", "platform")
DTYPES = pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-5), ("float64", 1e-12)])


def assert_near(found: Any, expected: Any, apart: float) -> None:
    """No entry of any array is further apart than so many times the array's largest entry."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=apart * float(jnp.abs(other).max()))


@DTYPES
@pytest.mark.parametrize("channels", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_all_formulations_agree_with_each_other_and_with_scipy(
    channels: tuple[int, int], dtype: str, apart: float, x64: None
) -> None:
    x, kernel = images(dtype, (2, 5, 4, channels[0])), images(dtype, (3, 3, *channels))
    weights = images(dtype, (2, 5, 4, channels[1]), seed=2)

    def evaluate(name: Formulation) -> Any:
        def run(x: jax.Array, kernel: jax.Array) -> Any:
            y = conv3x3_as(name, x, kernel)
            return jnp.sum(y * weights), y

        program = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True)).trace(x, kernel)
        assert ("conv_general_dilated" in str(program.jaxpr)) == (name != "products")
        (_, y), gradients = program.lower().compile()(x, kernel)
        return y, *gradients

    by_product, by_convolution, by_platform = map(evaluate, FORMULATIONS)
    assert_near(by_product, by_convolution, apart)
    assert_near(by_platform, by_convolution, apart)
    expected = correlate(np.asarray(x, np.float64), np.asarray(kernel, np.float64))
    np.testing.assert_allclose(by_product[0], expected, rtol=apart, atol=apart)
    # The gradient is linear in the weights, so it follows from the forward map of unit vectors.
    direction = images(dtype, x.shape, seed=3)
    moved = correlate(np.asarray(direction, np.float64), np.asarray(kernel, np.float64))
    np.testing.assert_allclose(
        np.sum(np.asarray(by_product[1]) * direction), np.sum(moved * weights), rtol=1e-4, atol=1e-3
    )


def network(
    channels: tuple[int, int, int], dtype: DTypeLike, padding: Padding = "zeros"
) -> CouplingNetwork:
    """A network whose every parameter is random."""
    inputs, hidden, outputs = channels
    made = CouplingNetwork(
        inputs,
        outputs,
        hidden_channels=hidden,
        padding=padding,
        logs_factor=3.0 if padding == "edge_bias" else 1.0,
        rngs=nnx.Rngs(0),
    )
    leaves, tree = jax.tree.flatten(made)
    return tree.unflatten(images(dtype, leaf.shape, seed) / 2 for seed, leaf in enumerate(leaves))


def network_by_scipy(layer: CouplingNetwork, x: jax.Array) -> np.ndarray:
    """What the network gives, its actnorms and its last convolution's scale on their own."""

    def wide(param: Any) -> np.ndarray:
        return np.asarray(param[...], np.float64)

    def normalise(h: np.ndarray, actnorm: Any) -> np.ndarray:
        return (h + wide(actnorm.bias)) * np.exp(actnorm.factor * wide(actnorm.logs))

    def convolve(h: np.ndarray, conv: Any) -> np.ndarray:
        kernel = wide(conv.kernel)
        if conv.padding != "edge_bias":
            return correlate(h, kernel, fill=int(conv.padding == "ones"))
        indicator = correlate(np.zeros((*h.shape[:3], 1)), kernel[:, :, -1:], fill=1)
        return correlate(h, kernel[:, :, :-1]) + indicator

    h = convolve(np.asarray(x, np.float64), layer.conv_in)
    h = np.maximum(normalise(h, layer.actnorm_in), 0) @ wide(layer.conv_hidden.kernel)
    h = np.maximum(normalise(h, layer.actnorm_hidden), 0)
    out = layer.conv_out
    return (convolve(h, out) + wide(out.bias)) * np.exp(3 * wide(out.logs))


@pytest.mark.parametrize(
    ("channels", "shape", "padding"),
    [
        pytest.param((2, 7, 4), (2, 5, 4), "edge_bias", id="wide-oblong-edge_bias"),
        pytest.param((5, 3, 6), (3, 1, 6), "zeros", id="narrow-one_row"),
        pytest.param((2, 7, 4), (3, 1, 6), "edge_bias", id="wide-one_row", marks=pytest.mark.slow),
        pytest.param((2, 7, 4), (2, 5, 4), "zeros", id="wide-oblong", marks=pytest.mark.slow),
        pytest.param((5, 3, 6), (2, 5, 4), "ones", id="narrow-oblong", marks=pytest.mark.slow),
    ],
)
@DTYPES
def test_all_formulations_of_a_network_agree_with_scipy(
    channels: tuple[int, int, int],
    shape: tuple[int, int, int],
    padding: Padding,
    dtype: str,
    apart: float,
    x64: None,
) -> None:
    x, v = (images(dtype, (*shape, n), seed=n) for n in (channels[0], channels[2]))
    layer = network(channels, dtype, padding)

    def run(layer: CouplingNetwork, x: jax.Array) -> Any:
        y = layer(x)
        return jnp.sum(y * v), y

    def evaluate(name: Formulation) -> Any:
        layer.formulation = name
        return jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))(layer, x)

    by_product, by_convolution, by_platform = map(evaluate, FORMULATIONS)
    assert_near(by_product, by_convolution, apart)
    assert_near(by_platform, by_convolution, apart)
    expected = network_by_scipy(layer, x)
    assert by_product[0][1].dtype == dtype
    np.testing.assert_allclose(
        by_product[0][1], expected, rtol=0, atol=apart * np.abs(expected).max()
    )


@pytest.mark.parametrize("padding", ["zeros", "edge_bias"])
@DTYPES
def test_the_gradient_on_a_gpu_is_that_of_the_definition(
    padding: Padding, dtype: str, apart: float, x64: None
) -> None:
    layer = network((2, 7, 4), dtype, padding)
    x, y_gradient = (images(dtype, (3, 5, 4, n), seed=n) for n in (2, 4))
    weights = layer.folded(x)
    (_, second), pull_back = jax.vjp(partial(convolutions, "highest"), weights, x)
    expected = pull_back((y_gradient, jnp.zeros_like(second)))
    found = network_gradient_on_gpu("highest", weights, x, second, y_gradient)
    assert_near(found, expected, apart)


def test_bfloat16_products_round_no_more_than_a_convolution() -> None:
    """Against float32 of the same rounded numbers, in the root mean square."""
    x, kernel = images(jnp.bfloat16, (2, 8, 8, 128)), images(jnp.bfloat16, (3, 3, 128, 4), seed=2)
    exact = conv3x3(x.astype(jnp.float32), kernel.astype(jnp.float32))
    errors = [
        float(jnp.sqrt(jnp.mean((way(x, kernel).astype(jnp.float32) - exact) ** 2)))
        for way in (conv3x3_of_few_outputs, conv3x3)
    ]
    assert conv3x3_of_few_outputs(x, kernel).dtype == jnp.bfloat16
    assert errors[0] <= 1.05 * errors[1]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="holds on a CPU")
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_the_precision_of_a_network_is_that_of_its_convolutions(formulation: Formulation) -> None:
    layer, x = network((2, 7, 4), jnp.float32), images(jnp.float32, (2, 5, 4, 2))
    layer.formulation = formulation
    found = []
    for precision in get_args(Precision):
        layer.precision = precision
        program = jax.jit(jax.value_and_grad(lambda layer, x: jnp.sum(layer(x) ** 2))).lower(
            layer, x
        )
        stated = re.findall(r"\b(?:HIGHEST|HIGH|DEFAULT)\b", program.as_text())
        assert set(stated) == {precision.upper()}
        assert len(stated) >= 2 * 8  # of both factors: three forwards, five of the gradient
        found.append(program.compile()(layer, x))
    # On a CPU all are the same.
    for other in found[1:]:
        pairs = zip(jax.tree.leaves(found[0]), jax.tree.leaves(other), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("layer", ["conv", "network"])
def test_how_convolutions_are_computed_is_chosen_where_they_run(layer: str) -> None:
    kernel = jnp.ones((3, 3, 2, 4))
    run: Any = (
        (lambda x: conv3x3_as("platform", x, kernel))
        if layer == "conv"
        else network((2, 7, 4), jnp.float32)
    )
    traced = jax.jit(jax.grad(lambda x: jnp.sum(run(x) ** 2))).trace(jnp.ones((1, 4, 4, 2)))
    barriers = {}
    for platform in ("cpu", "cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        barriers[platform] = text.count("stablehlo.optimization_barrier")
        products = platform == "cpu" or (platform == "cuda" and layer == "network")
        assert ("stablehlo.convolution" in text) == (not products)
    if layer == "network":  # the gradient for a CPU has many barriers, that for a GPU one
        assert barriers["cpu"] > barriers["cuda"] == 1 > barriers["tpu"]


@pytest.mark.parametrize("name", FORMULATIONS)
@pytest.mark.parametrize("channels", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("padding", ["ones", "edge_bias"])
def test_paddings_other_than_zeros(
    padding: Padding, channels: Any, name: Formulation, randomise: Any, x64: None
) -> None:
    layer = randomise(ZeroConv(*channels, padding=padding))
    x = images(jnp.float64, (2, 5, 4, channels[0]))
    layer.formulation = name
    y = jax.jit(lambda layer, x: layer(x))(layer, x)
    kernel, bias, logs = (np.asarray(p[...]) for p in (layer.kernel, layer.bias, layer.logs))
    if padding == "ones":
        convolved = correlate(np.asarray(x), kernel, fill=1)
    else:  # written out: zeros around the image, and a last channel of ones around zeros
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        ring = np.pad(np.zeros((*x.shape[:3], 1)), around, constant_values=1)
        padded = np.concatenate([np.pad(np.asarray(x), around), ring], axis=3)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        convolved = np.einsum("bhwiyx,yxio->bhwo", windows, kernel)
    expected = (convolved + bias) * np.exp(3 * logs)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


def test_hidden_convolutions_are_drawn_with_deviation_005_and_have_no_bias() -> None:
    layer = HiddenConv(16, 64, size=3, key=jax.random.key(0))
    kernel = np.asarray(layer.kernel[...])
    assert kernel.shape == (3, 3, 16, 64)
    assert abs(kernel.mean()) < 0.003  # its standard error is 0.0005
    assert abs(kernel.std() - 0.05) < 0.002
    assert not layer(jnp.zeros((1, 4, 4, 16)), "platform").any()
    assert len(jax.tree.leaves(nnx.state(layer))) == 1
