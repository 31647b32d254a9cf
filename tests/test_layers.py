"""Every layer: its inverse, its log-determinant, its dtypes and its gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.typing import DTypeLike

from glow_jax.flow import ConditionalStep, Level, Step
from glow_jax.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Conv1x1,
    Conv1x1LU,
    Reverse,
    Shuffle,
    Sigmoid,
    Split,
    Squeeze,
)

B, H, W, C = 2, 4, 6, 4  # oblong, so that swapped axes show
SHAPES = {
    "level": (B, H, W, 1),
    "conditional_step": (B, H, W, 8),
    "conditional_level": (B, H, W, 2),
}


def step(**options: Any) -> Step:
    defaults: dict[str, Any] = {
        "hidden_channels": 5,
        "flow_permutation": "invconv",
        "flow_coupling": "affine",
        "LU_decomposed": True,
        "actnorm_scale": 0.7,
        "padding": "zeros",
        "actnorm_logs_factor": 1.0,
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
            padding="zeros",
            actnorm_logs_factor=1.0,
            rngs=rngs,
        )

    return Level(build_step, K=2, rngs=nnx.Rngs(0))


def conditional_step(rngs: nnx.Rngs) -> ConditionalStep:
    return ConditionalStep(4, given=4, hidden_channels=5, actnorm_scale=0.7, rngs=rngs)


def coupling(kind: type, **options: Any) -> Bijection:
    return kind(**{"channels": C, **options}, hidden_channels=5, rngs=nnx.Rngs(0))


LAYERS: dict[str, Callable[[], Bijection]] = {
    "actnorm": lambda: ActNorm(C, scale=0.7),
    "actnorm_factor": lambda: ActNorm(C, scale=0.7, factor=3.0),
    "conv1x1": lambda: Conv1x1(C, key=jax.random.key(0)),
    "conv1x1_lu": lambda: Conv1x1LU(C, key=jax.random.key(0)),
    "reverse": Reverse,
    "shuffle": lambda: Shuffle(C, key=jax.random.key(0)),
    "additive_coupling": lambda: coupling(AdditiveCoupling),
    "affine_coupling": lambda: coupling(AffineCoupling),
    "affine_coupling_pad_ones": lambda: coupling(AffineCoupling, padding="ones"),
    "affine_coupling_edge_bias": lambda: coupling(
        AffineCoupling, padding="edge_bias", logs_factor=3.0
    ),
    "affine_coupling_given": lambda: coupling(AffineCoupling, channels=2, given=2),
    "sigmoid": Sigmoid,
    "squeeze": Squeeze,
    "split": lambda: Split(C),
    "split_pad_ones": lambda: Split(C, padding="ones"),
    "split_edge_bias": lambda: Split(C, padding="edge_bias"),
    "step": step,
    "step_plain_additive": lambda: step(LU_decomposed=False, flow_coupling="additive"),
    "step_shuffle": lambda: step(flow_permutation="shuffle"),
    "step_reverse": lambda: step(flow_permutation="reverse", flow_coupling="additive"),
    "level": level,
    "conditional_step": lambda: conditional_step(nnx.Rngs(0)),
    "conditional_level": lambda: Level(conditional_step, K=2, rngs=nnx.Rngs(0)),
}
# Those that hold no linear algebra, which XLA does not do in 16 bits.
WITHOUT_SOLVES = [
    "actnorm",
    "reverse",
    "shuffle",
    "affine_coupling_pad_ones",
    "affine_coupling_given",
    "sigmoid",
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
    # Any y will do that forward can give.
    scale = 0.5 if isinstance(layer, Sigmoid) else 1.5
    other = jax.tree.map(lambda part: jnp.flip(part, 0) * scale + 0.1, y)
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
    return {
        **there_and_back(layer, x),
        "jacobian": jacobian.reshape(B, x[0].size, B, x[0].size),
        "pulled_back": pulled_back(layer, x),
    }


def pulled_back(layer: Bijection, x: jax.Array) -> dict[str, Any]:
    """The layer's gradients of its input and its parameters by its own ways, and by JAX's."""
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    (y, logdet), pull_back = jax.vjp(
        lambda x, params: nnx.merge(graph, params, rest).forward(x), x, params
    )
    # Of every entry another one, so that none can take another's place.
    y_gradient = jax.tree.map(lambda part: jnp.cos(part) + 0.3, y)
    logdet_gradient = jnp.arange(1, B + 1, dtype=logdet.dtype)
    by_output = [layer]
    for prepared in (layer.prepare_forward(), layer.prepare_inverse()):
        if prepared is not layer:
            by_output.append(prepared)
    return {
        "by_jax": pull_back((y_gradient, logdet_gradient)),
        "gradient": layer.gradient(x, y_gradient, logdet_gradient),
        "by_output": [
            one.inverse_and_gradient(y, y_gradient, logdet_gradient) for one in by_output
        ],
    }


@pytest.fixture(
    scope="module",
    params=[
        # A level without its condition, and a conditional step, are examined every day.
        pytest.param(name, marks=pytest.mark.slow if name == "conditional_level" else ())
        for name in LAYERS
    ],
)
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
            np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)


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


def test_gradients_from_the_output_are_those_of_jax(examined: Examined) -> None:
    results = examined.double["pulled_back"]
    expected = results["by_jax"]
    for x, *found in results["by_output"]:
        np.testing.assert_allclose(x, examined.double["x"], rtol=0, atol=1e-12)
        # A bijection without parameters has an empty state.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
            tuple(found),
            expected,
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
        results["gradient"],
        expected,
    )


def test_compiled_and_uncompiled_agree(examined: Examined) -> None:
    y, logdet = examined.layer.forward(examined.x)
    compiled = examined.single
    np.testing.assert_allclose(flatten(y), flatten(compiled["y"]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(logdet, compiled["logdet"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
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
