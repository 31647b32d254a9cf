"""Ways to compute the same model: what gradients keep, convolutions, bfloat16 networks."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from gradients import build, difference, gradient

from glow_jax import reversible
from glow_jax.cli.training_flags import parse_training
from glow_jax.compiler import fast_to_compile
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError
from glow_jax.flow import GradientMemory
from glow_jax.kernels.products import Precision
from glow_jax.layers.convolution import Formulation
from glow_jax.model import Glow, abstract_glow, computing

VARIANTS: dict[str, dict[str, Any]] = {
    "affine, LU": {},
    "plain, ones padded": {"LU_decomposed": False, "padding": "ones", "L": 1},
    "additive, shuffle": {"flow_coupling": "additive", "flow_permutation": "shuffle", "L": 1},
    "reverse": {"flow_permutation": "reverse", "L": 1},
}
POSITIONS = {"at once": 512, "in parts": 48, "image by image": 8}
# Every kind of step once (a reversed order of channels in test_layers.py), two sizes of the
# parts; the rest of the products for -m slow.
EVERYDAY = [
    ("remat", "affine, LU", "at once"),
    ("reversible", "plain, ones padded", "image by image"),
    ("reversible", "additive, shuffle", "in parts"),
]
ALL = [
    (memory, variant, positions)
    for memory in ("remat", "reversible")
    for variant in VARIANTS
    for positions in POSITIONS
]


@cache
def keeping_all(variant: str) -> tuple[Glow, jax.Array, jax.Array, nnx.State]:
    """A model in float64 and images, and what the gradient gives that keeps all it needs."""
    model, x = build(jnp.float64, **VARIANTS[variant])
    return model, x, *gradient(model, x, "fast")


@pytest.fixture(scope="module")
def positions(request: pytest.FixtureRequest) -> Iterator[None]:
    """Positions in a part of the batch: a constant, which programs that JAX knows keep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reversible, "_CPU_POSITIONS", POSITIONS[request.param])
        jax.clear_caches()
        yield
    jax.clear_caches()


@pytest.mark.parametrize(
    ("memory", "variant", "positions"),
    [
        pytest.param(*case, id="-".join(case), marks=() if case in EVERYDAY else pytest.mark.slow)
        for case in ALL
    ],
    indirect=["positions"],
)
def test_gradients_agree_in_float64(
    memory: GradientMemory, variant: str, positions: None, x64: None
) -> None:
    model, x, value, expected = keeping_all(variant)
    other_value, found = gradient(model, x, memory)
    assert float(abs(value - other_value).max()) < 1e-12
    assert difference(found, expected) < 1e-9
    for leaf in jax.tree.leaves(found):
        assert leaf.dtype == jnp.float64


@pytest.fixture(scope="module")
def single() -> tuple[Glow, jax.Array]:
    """A model in float32, and images."""
    return build(jnp.float32)


@pytest.fixture(scope="module")
def single_gradient(single: tuple[Glow, jax.Array]) -> nnx.State:
    """The gradient that keeps all it needs."""
    return gradient(*single, "fast")[1]


@pytest.mark.parametrize("memory", ["remat", "reversible"])
def test_gradients_agree_in_float32(
    memory: GradientMemory, single: tuple[Glow, jax.Array], single_gradient: nnx.State
) -> None:
    # Reconstruction can flip a ReLU, so that a reversible gradient is nearly the same one.
    _, found = gradient(*single, memory)
    assert difference(found, single_gradient) < (1e-5 if memory == "remat" else 5e-3)


def test_a_batch_is_taken_in_parts_of_so_many_positions() -> None:
    x = jnp.zeros((7, 4, 4, 12))
    sizes = {name: reversible._part_size(x, positions) for name, positions in POSITIONS.items()}
    assert sizes == {"at once": 7, "in parts": 3, "image by image": 1}
    assert reversible._into_parts(x, 3).shape == (3, 3, 4, 4, 12)


@pytest.mark.slow
@pytest.mark.optimised
def test_a_deep_reversible_gradient_is_nearly_the_same() -> None:
    shape = {"L": 3, "hidden_channels": 64, "image_shape": (32, 32, 3)}
    model, x = build(jnp.float32, noise=0.005, K=32, **shape)
    _, expected = gradient(model, x, "fast")
    _, found = gradient(model, x, "reversible")
    assert difference(found, expected) < 5e-3


@pytest.mark.parametrize("memory", ["fast", "remat"])
def test_matrices_are_multiplied_before_the_scan_over_steps(memory: GradientMemory) -> None:
    model, x = build(jnp.float32)
    traced = jax.make_jaxpr(lambda model, x: model.log_prob(x))(computing(model, memory=memory), x)
    shapes = re.findall(r"f32\[([\d,]+)\] = dot_general", str(traced))
    products = [tuple(map(int, shape.split(","))) for shape in shapes]
    matrices = [shape for shape in products if shape[-2:] in ((12, 12), (24, 24))]
    steps = model.config.K
    # P (L U) of all steps of a level at once, in each of two levels.
    assert sorted(matrices) == 2 * [(steps, 12, 12)] + 2 * [(steps, 24, 24)]


# How convolutions are computed.


@pytest.mark.parametrize("formulation", ["convolution", "products"])
def test_gradients_agree_however_convolutions_are_computed(
    formulation: Formulation, single: tuple[Glow, jax.Array], single_gradient: nnx.State
) -> None:
    model, x = single
    model = computing(model, memory="fast", formulation=formulation)
    graph, params, buffers = nnx.split(model, nnx.Param, ...)
    weights = jnp.arange(1, len(x) + 1, dtype=x.dtype) / len(x)

    def loss(params: nnx.State) -> jax.Array:
        log_prob = nnx.merge(graph, params, buffers).log_prob(x)
        return -log_prob / (model.config.dimensions * np.log(2)) @ weights

    program = jax.jit(jax.grad(loss)).trace(params)
    # One of every network and prior, and none besides.
    assert ("conv_general_dilated" in str(program.jaxpr)) == (formulation == "convolution")
    found = program.lower().compile()(params)
    assert difference(found, single_gradient) < 1e-5


@pytest.mark.slow
def test_the_whole_model_can_be_differentiated_forwards(x64: None) -> None:
    model, x, _, _ = keeping_all("affine, LU")
    model = computing(model, memory="fast", formulation="convolution")
    graph, params, buffers = nnx.split(model, nnx.Param, ...)

    def log_prob(params: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, buffers).log_prob(x).sum()

    rng = np.random.default_rng(5)
    primals = (params, x)
    tangents = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), primals)
    _, slope = jax.jit(lambda *arguments: jax.jvp(log_prob, *arguments))(primals, tangents)
    gradients = jax.jit(jax.grad(log_prob, argnums=(0, 1)))(*primals)
    expected = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradients, tangents)))
    np.testing.assert_allclose(slope, expected, rtol=1e-10)
    # Elsewhere a gradient of the model's own stands in the way.
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(computing(model, formulation="platform").log_prob, (x,), (x,))


# Other types, and memory.


def test_bfloat16_networks_leave_likelihoods_in_float32(single: tuple[Glow, jax.Array]) -> None:
    model, x = single
    rounded = computing(model, dtype="bfloat16")
    code, expected = rounded.encode(x), model.encode(x)
    assert code.log_prob.dtype == jnp.float32
    assert all(latent.dtype == jnp.float32 for latent in code.latents)
    bits = (code.log_prob - expected.log_prob) / (model.config.dimensions * np.log(2))
    assert 0 < float(abs(bits).max()) < 0.05  # not the same, and near; trained models come nearer
    parameters = zip(jax.tree.leaves(rounded), jax.tree.leaves(model), strict=True)
    assert all(bool(np.array_equal(a, b)) for a, b in parameters)
    # Decoded in the type that encoded it, an image comes back; in the other, less so.
    own = float(jnp.abs(rounded.decode(code.latents) - x).max())
    other = float(jnp.abs(model.decode(code.latents) - x).max())
    assert own < other


@pytest.mark.parametrize("precision", ["high", pytest.param("default", marks=pytest.mark.slow)])
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="holds on a CPU")
def test_on_a_cpu_every_precision_gives_the_same(
    precision: Precision, single: tuple[Glow, jax.Array]
) -> None:
    model, x = single
    expected, found = (
        gradient(computing(model, precision=name), x, "remat") for name in ("highest", precision)
    )
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    assert all(bool((a == b).all()) for a, b in pairs)


def test_bfloat16_and_reversible_are_refused_together() -> None:
    model = abstract_glow(ModelConfig(K=1, L=1, hidden_channels=2, image_shape=(4, 4, 1)))
    with pytest.raises(GlowError, match="use remat with bfloat16, or float32"):
        computing(model, memory="reversible", dtype="bfloat16")
    with pytest.raises(GlowError, match="dtype is bfloat16; it must be float32 where memory is"):
        parse_training(["--memory", "reversible", "--dtype", "bfloat16"])


@pytest.mark.parametrize("LU_decomposed", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="LAPACK is the CPU's")
def test_no_kernel_takes_a_batch_of_matrices(LU_decomposed: bool) -> None:
    # Batched, jaxlib's wait in a thread for other threads: two at once on two cores never ended.
    config = ModelConfig(
        K=3, L=1, hidden_channels=4, image_shape=(4, 4, 1), LU_decomposed=LU_decomposed, y_classes=0
    )
    model, key = abstract_glow(config), jax.random.key(0)
    x = jnp.zeros((2, *config.image_shape))
    noise = tuple(jnp.zeros((2, *shape)) for shape in config.latent_shapes)
    programs = {
        "build": jax.jit(lambda key: Glow(config, rngs=nnx.Rngs(key))).lower(key),
        "decode": jax.jit(lambda model: model.decode_noise(noise)).lower(model),
        "gradient": jax.jit(lambda model: gradient(model, x, "reversible")).lower(model),
    }
    for name, program in programs.items():
        compiled = program.compile().as_text()
        assert compiled is not None
        calls = [
            line
            for line in compiled.splitlines()
            if re.search(r'custom_call_target="(lapack|blas)', line)
        ]
        # Kernels draw rotations, and factorise matrices that are stored whole.
        assert bool(calls) == (name == "build" or not LU_decomposed), name
        assert not [line for line in calls if re.search(r"f32\[\d+,\d+,\d+\]", line)], name


def temporary_memory(memory: GradientMemory, **changes: Any) -> int:
    """XLA's own count of what a gradient needs beside its arguments and results, in bytes."""
    settings = {"L": 3, "hidden_channels": 64, "image_shape": (32, 32, 3), "y_classes": 0}
    model = computing(abstract_glow(ModelConfig(**{**settings, **changes})), memory=memory)
    graph, params, buffers = nnx.split(model, nnx.Param, ...)
    x = jax.ShapeDtypeStruct((16, *model.config.image_shape), jnp.float32)

    def loss(params: nnx.State, buffers: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, params, buffers).log_prob(x).mean()

    # As training compiles it.
    lowered = jax.jit(jax.value_and_grad(loss)).lower(params, buffers, x)
    analysis = lowered.compile(compiler_options=fast_to_compile("cpu")).memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


@pytest.mark.optimised
def test_reversible_memory_does_not_grow_with_depth() -> None:
    # Levels are alike: one shows what each does.
    deep, flat = (temporary_memory("reversible", K=K, L=1) for K in (64, 4))
    assert deep <= 1.05 * flat


@pytest.mark.slow
@pytest.mark.optimised
def test_reversible_memory_at_the_published_size() -> None:
    fast = temporary_memory("fast", K=32, hidden_channels=512)
    assert temporary_memory("reversible", K=32, hidden_channels=512) <= fast / 25
