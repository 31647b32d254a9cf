"""The programs of a model: their inputs, their size and their types."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from small_models import SMALL, Pair

from glow_jax import Code, Glow, ModelConfig, initialise_actnorm
from glow_jax.model import abstract_glow


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
        model = abstract_glow(ModelConfig(**{**SMALL, "K": steps, "flow_permutation": "reverse"}))
        x = jax.ShapeDtypeStruct((2, *model.config.image_shape), jnp.float32)
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


def test_dtypes_follow_the_input_and_the_parameters(x64: None) -> None:
    wide = abstract_glow(ModelConfig(K=1, L=2, hidden_channels=4, image_shape=(4, 4, 1)))
    narrow = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), wide)
    key = jax.random.key(0)

    def every_value(model: Glow, x: jax.Array) -> Any:
        code = model.encode(x)
        drawn = model.decode((None, code.latents[1]), key=key)
        return code, model.decode(code.latents), drawn, model.decode_noise(code.noise)

    for model, given, expected in (
        (narrow, jnp.float32, jnp.float32),
        (narrow, jnp.float64, jnp.float64),
        (wide, jnp.float32, jnp.float64),
    ):
        values = jax.eval_shape(every_value, model, jax.ShapeDtypeStruct((2, 4, 4, 1), given))
        assert {leaf.dtype for leaf in jax.tree.leaves(values)} == {jnp.dtype(expected)}
    for model, expected in ((narrow, jnp.float32), (wide, jnp.float64)):
        assert jax.eval_shape(lambda model: model.sample(key, 2), model).dtype == expected
