"""Data-dependent initialisation, and reconstruction at full size."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import build, convolve, images, step_of, zero_conv

from glow_jax import Code, Glow, ModelConfig, dequantize, initialise_actnorm
from glow_jax.layers import AffineCoupling


def normalise_by_hand(x: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bias, logs = -x.mean((0, 1, 2)), np.log(scale / (x.std((0, 1, 2)) + 1e-6))
    return (x + bias) * np.exp(logs), bias, logs


@pytest.mark.parametrize("name", ["affine_lu", "additive_plain_grey"])
def test_initialisation_by_hand(name: str, randomise: Any, x64: None) -> None:
    model = randomise(build(name, actnorm_scale=0.6, padding="ones"), scale=0.1)
    before = jax.tree.map(np.array, nnx.state(model))
    x = images(model, 6)
    initialised = initialise_actnorm(model, x)
    after = jax.tree.map(np.array, nnx.state(model))
    jax.tree.map(np.testing.assert_array_equal, before, after)  # the caller's model is untouched

    h = np.asarray(x)
    for level, new_level in zip(model.levels, initialised.levels, strict=True):
        h = np.asarray(level.squeeze.forward(jnp.asarray(h))[0])
        for k in range(model.config.K):
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
            hidden = np.maximum(hidden, 0) @ np.asarray(network.conv_hidden.kernel[...])
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


@pytest.mark.parametrize("name", ["affine_lu", "additive_plain_grey"])
def test_initialisation_a_few_images_at_a_time(
    name: str, randomise: Any, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = randomise(build(name), scale=0.1)
    x = images(model, 7)
    height, width, _ = model.config.image_shape
    at_once = nnx.state(initialise_actnorm(model, x))
    largest = 3 * (height // 2) * (width // 2) * model.config.hidden_channels
    monkeypatch.setattr("glow_jax.layers.network._HIDDEN_VALUES", largest)
    assert model.levels[0].steps.coupling.network.at_a_time(x[:, ::2, ::2]) == 3
    jax.clear_caches()
    found = nnx.state(initialise_actnorm(model, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), found, at_once)


def test_initialisation_takes_the_memory_of_a_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("affine_lu", hidden_channels=64)
    x = images(model, 64)
    height, width, _ = model.config.image_shape

    def temporary() -> int:
        jax.clear_caches()
        memory = jax.jit(initialise_actnorm).lower(model, x).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    at_once = temporary()
    # Two images of 64 in the first level, eight in the second.
    largest = 2 * (height // 2) * (width // 2) * model.config.hidden_channels
    monkeypatch.setattr("glow_jax.layers.network._HIDDEN_VALUES", largest)
    assert temporary() < at_once / 4


@pytest.mark.slow
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
@pytest.mark.optimised
def test_reconstruction_at_full_size() -> None:
    from sklearn.datasets import load_sample_images

    # Real pictures: 32 x 32 crops of the two photographs that scikit-learn carries.
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
