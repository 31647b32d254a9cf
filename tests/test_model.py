"""Whole models: likelihoods by hand, exact inverses, draws, initialisation, and what is refused."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

from glow_jax import Code, Glow, GlowError, ModelConfig, dequantize, initialise_actnorm
from glow_jax.layers import AffineCoupling

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Most share their shapes, so that what building a model compiles is compiled once.
SMALL: dict[str, Any] = {"image_shape": (4, 8, 1), "K": 2, "L": 2, "hidden_channels": 5}
CLASSES = 3
CONDITIONAL: dict[str, Any] = {"y_condition": True, "y_classes": CLASSES}
CONFIGS: dict[str, dict[str, Any]] = {
    "affine_lu": {"image_shape": (4, 8, 3)},
    "additive_plain_grey": {"flow_coupling": "additive", "LU_decomposed": False},
    "conditional_shuffle": {**CONDITIONAL, "flow_permutation": "shuffle"},
    "multi_class_plain_level_no_learn_top": {
        **CONDITIONAL,
        "multi_class": True,
        "plain_levels": (1,),
        "learn_top": False,
    },
    "pad_ones_4_channels": {
        "image_shape": (8, 4, 4),
        "flow_permutation": "shuffle",
        "pad_ones": True,
    },
    "three_levels_of_one_step": {
        "image_shape": (8, 8, 1),
        "L": 3,
        "K": 1,
        "flow_permutation": "reverse",
        "flow_coupling": "additive",
    },
    "one_level_no_learn_top": {"L": 1, "flow_permutation": "reverse", "learn_top": False},
}


def build(name: str) -> Glow:
    return Glow(ModelConfig(**{**SMALL, **CONFIGS[name]}), rngs=nnx.Rngs(0))


def images(model: Glow, batch: int, seed: int = 1) -> jax.Array:
    """In the default dtype: float64 where x64 is on."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-0.5, 0.5, (batch, *model.config.image_shape)), float)


def labels(model: Glow, batch: int) -> jax.Array | None:
    if not model.config.y_condition:
        return None
    if model.config.multi_class:
        return jnp.asarray(np.arange(batch)[:, None] % (np.arange(CLASSES) + 2) == 1, float)
    return jnp.asarray(np.eye(CLASSES)[(np.arange(batch) + 1) % CLASSES], float)


def flatten(parts: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1)


def step_of(level: Any, k: int) -> Any:
    """Step `k` of a level's stacked steps."""
    return jax.tree.map(lambda stacked: stacked[k], level.steps)


def convolve(x: np.ndarray, kernel: np.ndarray, pad: float = 0.0) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=pad)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("bhwiyx,yxio->bhwo", windows, kernel)


def zero_conv(x: np.ndarray, layer: Any) -> np.ndarray:
    """(conv + bias) * exp(3 logs), by numpy."""
    kernel, bias, logs = (np.asarray(p[...]) for p in (layer.kernel, layer.bias, layer.logs))
    return (convolve(x, kernel, pad=float(layer.pad_ones)) + bias) * np.exp(3 * logs)


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
    h, tops, logdets = x, [], []
    for level in model.levels:
        h, _ = level.squeeze.forward(h)
        total = jnp.zeros(x.shape[0])
        for k in range(model.config.K):
            h, logdet = step_of(level, k).forward(h)
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


@pytest.fixture(scope="module", params=CONFIGS)
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
    for level, top in zip(model.levels[:-1], examined.tops[:-1], strict=True):
        assert level.split is not None
        h = zero_conv(top[..., : top.shape[-1] // 2], level.split.conv)
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


# Two float32 models with random parameters, and a code of 5 images each.


class Pair(NamedTuple):
    model: Glow
    x: jax.Array
    y: jax.Array | None
    code: Code


def pair(name: str, randomise: Callable[..., Any]) -> Pair:
    model = randomise(build(name), scale=0.1)
    x, y = images(model, 5), labels(model, 5)
    return Pair(model, x, y, model.encode(x, y))


@pytest.fixture(scope="module")
def plain(randomise: Callable[..., Any]) -> Pair:
    return pair("affine_lu", randomise)


@pytest.fixture(scope="module")
def conditional(randomise: Callable[..., Any]) -> Pair:
    return pair("conditional_shuffle", randomise)


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


# Decoding with draws.


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


# What is refused.


def refused(call: Callable[[], Any], *words: str) -> None:
    with pytest.raises(GlowError) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.bfloat16])
def test_images_of_another_dtype(plain: Pair, dtype: Any) -> None:
    x = plain.x.astype(dtype)
    for call in (plain.model.encode, plain.model.log_prob):
        refused(lambda call=call: call(x), np.dtype(dtype).name)
    refused(lambda: initialise_actnorm(plain.model, x), np.dtype(dtype).name)
    with pytest.raises(TypeError):
        plain.model.encode(x)


@pytest.mark.parametrize("shape", [(5, 4, 8, 1), (5, 8, 4, 3), (4, 8, 3), (5, 4, 8, 3, 1)])
def test_images_of_another_shape(plain: Pair, shape: tuple[int, ...]) -> None:
    refused(lambda: plain.model.encode(jnp.zeros(shape)), "(B, 4, 8, 3)", str(shape))
    refused(lambda: initialise_actnorm(plain.model, jnp.zeros(shape)), str(shape))


def test_shapes_are_checked_while_tracing(plain: Pair) -> None:
    refused(
        lambda: jax.jit(lambda m, x: m.encode(x))(plain.model, plain.x[..., :1]), "(B, 4, 8, 3)"
    )


def test_labels_missing_superfluous_or_of_another_shape(plain: Pair, conditional: Pair) -> None:
    model, y = conditional.model, conditional.y
    assert y is not None
    calls: list[Callable[[Glow, Pair, Any], Any]] = [
        lambda m, p, y: m.encode(p.x, y),
        lambda m, p, y: m.log_prob(p.x, y),
        lambda m, p, y: m.decode(p.code.latents, y),
        lambda m, p, y: m.decode_noise(p.code.noise, y),
        lambda m, p, y: m.sample(jax.random.key(0), 5, y=y),
        lambda m, p, y: initialise_actnorm(m, p.x, y),
    ]
    for call in calls:
        refused(lambda call=call: call(model, conditional, None), "give y")
        for wrong in (y[:4], y[:, :2], jnp.argmax(y, axis=1)):
            refused(lambda call=call, wrong=wrong: call(model, conditional, wrong), "(5, 3)")
        refused(lambda call=call: call(plain.model, plain, y), "without y_condition")
    refused(lambda: plain.model.classify(plain.code.latents), "no classifier")


def test_latents_missing_or_of_another_shape(plain: Pair, conditional: Pair) -> None:
    model, _, _, code = plain
    fine, top = code.latents
    key = jax.random.key(0)
    for call in (model.decode, model.decode_noise):
        refused(lambda call=call: call((top,)), "2 latents, not 1")
        refused(lambda call=call: call((fine, top, top)), "2 latents, not 3")
        refused(lambda call=call: call((top, fine)), "Latent 0")
        refused(lambda call=call: call((fine, top[:3])), "Latent 1", "(5, 1, 2, 24)")
        refused(lambda call=call: call((fine, top[..., :5])), "Latent 1")
    refused(lambda: model.decode((None, top)), "key")
    refused(lambda: model.decode((None, top), temperature=0.7), "key")
    refused(lambda: model.decode((None, None), key=key), "sample")
    refused(lambda: model.decode_noise((None, top)), "decode")  # pyright: ignore[reportArgumentType]
    for n in (0, -1):
        refused(lambda n=n: model.sample(key, n), "at least 1", str(n))
    fine, top = conditional.code.latents
    refused(lambda: conditional.model.classify((fine, None)), "top latent")
    refused(lambda: conditional.model.classify((fine, top[..., :3])), "Latent 1")
    refused(lambda: conditional.model.classify((fine,)), "2 latents, not 1")


# Compilation.


def test_weights_are_an_argument_of_the_compiled_program(plain: Pair, randomise: Any) -> None:
    traces = []

    @jax.jit
    def encode(model: Glow, x: jax.Array) -> Code:
        traces.append(x.shape)
        return model.encode(x)

    model, x = plain.model, plain.x
    changed = randomise(model, seed=7, scale=0.05)
    np.testing.assert_allclose(encode(model, x).log_prob, plain.code.log_prob, rtol=1e-5, atol=1e-3)
    log_prob = encode(changed, x).log_prob
    np.testing.assert_allclose(log_prob, changed.encode(x).log_prob, rtol=1e-5, atol=1e-3)
    assert np.abs(log_prob - plain.code.log_prob).min() > 0.01
    assert len(traces) == 1  # the changed weights ran the same program


def count_equations(jaxpr: Any) -> int:
    inner = jax.tree.leaves(
        [list(equation.params.values()) for equation in jaxpr.eqns],
        is_leaf=lambda value: hasattr(value, "eqns") or hasattr(value, "jaxpr"),
    )
    programs = [getattr(value, "jaxpr", value) for value in inner]
    return len(jaxpr.eqns) + sum(count_equations(p) for p in programs if hasattr(p, "eqns"))


def test_programs_do_not_grow_with_k() -> None:
    def gradient(model: Glow, x: jax.Array) -> Any:
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params: Any) -> jax.Array:
            return jnp.sum(nnx.merge(graph, params, rest).encode(x).log_prob)

        return jax.grad(loss)(params)

    sizes = []
    for steps in (2, 8):
        config = ModelConfig(**{**SMALL, "K": steps, "flow_permutation": "reverse"})
        model = Glow(config, rngs=nnx.Rngs(0))
        x = images(model, 2)
        code = jax.eval_shape(lambda m, x: m.encode(x), model, x)
        programs = (
            jax.make_jaxpr(lambda m, x: m.encode(x))(model, x),
            jax.make_jaxpr(lambda m, z: m.decode(z))(model, code.latents),
            jax.make_jaxpr(initialise_actnorm)(model, x),
            jax.make_jaxpr(gradient)(model, x),
        )
        sizes.append([count_equations(program.jaxpr) for program in programs])
    assert sizes[0] == sizes[1]
    assert min(sizes[0]) > 50  # the inner programs were counted


# Data-dependent initialisation.


def normalise_by_hand(x: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bias, logs = -x.mean((0, 1, 2)), np.log(scale / (x.std((0, 1, 2)) + 1e-6))
    return (x + bias) * np.exp(logs), bias, logs


@pytest.mark.parametrize("name", ["affine_lu", "additive_plain_grey"])
def test_initialisation_by_hand(name: str, randomise: Any, x64: None) -> None:
    config = ModelConfig(**{**SMALL, **CONFIGS[name], "actnorm_scale": 0.6, "pad_ones": True})
    model = randomise(Glow(config, rngs=nnx.Rngs(0)), scale=0.1)
    before = jax.tree.map(np.array, nnx.state(model))
    x = images(model, 6)
    initialised = initialise_actnorm(model, x)
    after = jax.tree.map(np.array, nnx.state(model))
    jax.tree.map(np.testing.assert_array_equal, before, after)  # the caller's model is untouched

    h = np.asarray(x)
    for level, new_level in zip(model.levels, initialised.levels, strict=True):
        h = np.asarray(level.squeeze.forward(jnp.asarray(h))[0])
        for k in range(config.K):
            step, new = step_of(level, k), step_of(new_level, k)
            network, new_network = step.coupling.network, new.coupling.network
            output = np.asarray(new.actnorm.forward(jnp.asarray(h))[0])
            np.testing.assert_allclose(output.mean((0, 1, 2)), 0, atol=1e-9)
            np.testing.assert_allclose(output.std((0, 1, 2)), 0.6, rtol=1e-4)

            h, *expected = normalise_by_hand(h, 0.6)
            h = np.asarray(step.permutation.forward(jnp.asarray(h))[0])
            first, second = np.split(h, 2, axis=-1)
            hidden = convolve(first, np.asarray(network.conv_in.kernel[...]))
            hidden, *expected_in = normalise_by_hand(hidden, 1.0)
            hidden = np.maximum(hidden, 0) @ np.asarray(network.conv_hidden.kernel[0, 0])
            hidden, *expected_hidden = normalise_by_hand(hidden, 1.0)
            out = zero_conv(np.maximum(hidden, 0), network.conv_out)
            if isinstance(step.coupling, AffineCoupling):
                second = (second + out[..., 0::2]) / (1 + np.exp(-out[..., 1::2] - 2))
            else:
                second = second + out
            h = np.concatenate([first, second], axis=-1)

            for actnorm, values in (
                (new.actnorm, expected),
                (new_network.actnorm_in, expected_in),
                (new_network.actnorm_hidden, expected_hidden),
            ):
                np.testing.assert_allclose(actnorm.bias[...], values[0], rtol=0, atol=1e-8)
                np.testing.assert_allclose(actnorm.logs[...], values[1], rtol=0, atol=1e-8)
        h = h[..., : h.shape[-1] // 2]


def test_constant_channels_and_images_stay_finite() -> None:
    @jax.jit
    def examine(model: Glow, x: jax.Array) -> Any:
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Code]:
            code = nnx.merge(graph, params, rest).encode(x)
            return jnp.mean(code.log_prob), code

        return params, jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    model = build("affine_lu")
    x = images(model, 4)
    for constant in (x.at[..., 1].set(0.25), jnp.full_like(x, 0.3)):
        results = examine(initialise_actnorm(model, constant), constant)
        for path, leaf in jax.tree.leaves_with_path(results):
            assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)


@pytest.mark.slow
def test_reconstruction_at_full_size() -> None:
    from sklearn.datasets import load_sample_images

    # Real pictures: 32 x 32 crops of the two photographs that scikit-learn carries.
    jax.config.update("jax_disable_most_optimizations", False)  # the program that users run
    photographs = load_sample_images()["images"]
    corners = [(picture, 32 * i, 64 * i) for picture in range(2) for i in range(8)]
    crops = [photographs[p][row : row + 32, column : column + 32] for p, row, column in corners]
    x = dequantize(jnp.asarray(np.stack(crops)), jax.random.key(0))
    model = Glow(ModelConfig(image_shape=(32, 32, 3)), rngs=nnx.Rngs(0))
    config = model.config
    assert (config.K, config.L, config.hidden_channels) == (32, 3, 512)
    model = initialise_actnorm(model, x)
    code = model.encode(x[::2])
    for again in (model.decode(code.latents), model.decode_noise(code.noise)):
        assert np.abs(again - x[::2]).max() <= 1e-4


def test_dtypes_follow_the_input_and_the_parameters(x64: None) -> None:
    config = ModelConfig(K=1, L=2, hidden_channels=4, image_shape=(4, 4, 1))
    wide = Glow(config, rngs=nnx.Rngs(0))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), wide)
    x32 = jnp.zeros((2, 4, 4, 1), jnp.float32)
    for model, x, expected in (
        (narrow, x32, jnp.float32),
        (narrow, x32.astype(jnp.float64), jnp.float64),
        (wide, x32, jnp.float64),
    ):
        code = model.encode(x)
        assert {leaf.dtype for leaf in jax.tree.leaves(code)} == {jnp.dtype(expected)}
        assert model.decode(code.latents).dtype == expected
        assert model.decode((None, code.latents[1]), key=jax.random.key(0)).dtype == expected
        assert model.decode_noise(code.noise).dtype == expected
    assert narrow.sample(jax.random.key(0), 2).dtype == jnp.float32
    assert wide.sample(jax.random.key(0), 2).dtype == jnp.float64


def test_values_that_would_be_rounded_or_are_no_numbers_are_refused(plain: Pair) -> None:
    with pytest.raises(GlowError, match="jax_enable_x64"):
        plain.model.encode(np.asarray(plain.x, np.float64))
    integers = tuple(latent.astype(jnp.int32) for latent in plain.code.latents)
    with pytest.raises(GlowError, match="floating-point"):
        plain.model.decode(integers)
    with pytest.raises(GlowError, match="shape"):
        plain.model.decode((jnp.zeros(()), *plain.code.latents[1:]))
