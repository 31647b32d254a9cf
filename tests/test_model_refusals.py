"""What a model refuses, each in one sentence."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import Pair

from glow_jax import Glow, GlowError, initialise_actnorm


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


def test_values_that_would_be_rounded_or_are_no_numbers_are_refused(plain: Pair) -> None:
    with pytest.raises(GlowError, match="jax_enable_x64"):
        plain.model.encode(np.asarray(plain.x, np.float64))
    integers = tuple(latent.astype(jnp.int32) for latent in plain.code.latents)
    with pytest.raises(GlowError, match="floating-point"):
        plain.model.decode(integers)
    with pytest.raises(GlowError, match="shape"):
        plain.model.decode((jnp.zeros(()), *plain.code.latents[1:]))
