"""Ways to compute the same model: what gradients keep, bfloat16 networks, kept compilations."""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from glow_jax.cli.training_flags import parse_training
from glow_jax.config import ModelConfig
from glow_jax.devices.compilation import fast_to_compile, keep_compiled_programs
from glow_jax.errors import GlowError
from glow_jax.flow import Memory
from glow_jax.model import Glow, computing, initialise_actnorm, put_together, take_apart

BATCH = 7  # of 4 x 4 positions in the first level


def build(dtype: type, *, noise: float = 0.05, **changes) -> tuple[Glow, jax.Array]:
    """A model with some life in it, and images."""
    settings = {"K": 3, "L": 2, "hidden_channels": 8, "image_shape": (8, 8, 3), "y_classes": 0}
    model = Glow(ModelConfig(**{**settings, **changes}), rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(-0.5, 0.5, (BATCH, *model.config.image_shape)), dtype)
    parts = take_apart(model)
    params, buffers = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        (parts.params, parts.buffers),
    )
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(noise * rng.standard_normal(leaf.shape), dtype), params
    )
    return initialise_actnorm(put_together(parts.graph, params, buffers), x), x


def gradient(model: Glow, x: jax.Array, memory: Memory) -> tuple[jax.Array, nnx.State]:
    """Log-likelihoods in bits/dim, (B,), and the gradient of a weighted sum of them."""
    parts = take_apart(computing(model, memory=memory))

    # Images count differently, so that it shows if they change places.
    weights = jnp.arange(1, len(x) + 1, dtype=x.dtype) / len(x)

    def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        log_prob = put_together(parts.graph, params, parts.buffers).log_prob(x)
        bits = -log_prob / (model.config.dimensions * np.log(2))
        return bits @ weights, bits

    gradient, bits = jax.jit(jax.grad(loss, has_aux=True))(parts.params)
    return bits, gradient


def difference(one: nnx.State, other: nnx.State) -> float:
    """Norm of the difference of two whole gradients, relative to the second."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    squares = sum(float(jnp.sum((a - b) ** 2)) for a, b in pairs)
    return (squares / sum(float(jnp.sum(b**2)) for _, b in pairs)) ** 0.5


VARIANTS = [
    {},
    {"flow_coupling": "additive", "flow_permutation": "shuffle"},
    {"flow_permutation": "reverse"},
    {"LU_decomposed": False, "pad_ones": True},
]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("memory", ["remat", "reversible"])
@pytest.mark.parametrize("positions", [512, 48, 8], ids=["at once", "in parts", "image by image"])
def test_gradients_agree_in_float64(
    changes: dict, memory: Memory, positions: int, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glow_jax.flow._POSITIONS", positions)
    model, x = build(jnp.float64, **changes)
    value, expected = gradient(model, x, "fast")
    other_value, found = gradient(model, x, memory)
    assert float(abs(value - other_value).max()) < 1e-12
    assert difference(found, expected) < 1e-9
    for leaf in jax.tree.leaves(found):
        assert leaf.dtype == jnp.float64


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("memory", ["remat", "reversible"])
def test_gradients_agree_in_float32(memory: Memory) -> None:
    # Reconstruction can flip a ReLU, so that a reversible gradient is nearly the same one.
    model, x = build(jnp.float32)
    _, expected = gradient(model, x, "fast")
    _, found = gradient(model, x, memory)
    assert difference(found, expected) < (1e-5 if memory == "remat" else 5e-3)


@pytest.mark.slow
def test_a_deep_reversible_gradient_is_nearly_the_same() -> None:
    shape = {"L": 3, "hidden_channels": 64, "image_shape": (32, 32, 3)}
    model, x = build(jnp.float32, noise=0.005, K=32, **shape)
    _, expected = gradient(model, x, "fast")
    _, found = gradient(model, x, "reversible")
    assert difference(found, expected) < 5e-3


def temporary_memory(memory: Memory, **changes) -> int:
    """XLA's own count of what a gradient needs beside its arguments and results, in bytes."""
    settings = {"L": 3, "hidden_channels": 64, "image_shape": (32, 32, 3), "y_classes": 0}
    config = ModelConfig(**{**settings, **changes})
    shapes = nnx.eval_shape(lambda: computing(Glow(config, rngs=nnx.Rngs(0)), memory=memory))
    graph, params, buffers = take_apart(shapes)
    x = jax.ShapeDtypeStruct((16, *config.image_shape), jnp.float32)

    def loss(params: nnx.State, buffers: nnx.State, x: jax.Array) -> jax.Array:
        return put_together(graph, params, buffers).log_prob(x).mean()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, buffers, x).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_reversible_memory_does_not_grow_with_depth() -> None:
    assert temporary_memory("reversible", K=64) <= 1.05 * temporary_memory("reversible", K=4)


@pytest.mark.slow
def test_reversible_memory_at_the_published_size() -> None:
    fast = temporary_memory("fast", K=32, hidden_channels=512)
    assert temporary_memory("reversible", K=32, hidden_channels=512) <= fast / 25


def test_bfloat16_networks_leave_likelihoods_in_float32() -> None:
    model, x = build(jnp.float32)
    rounded = computing(model, dtype="bfloat16")
    code, expected = rounded.encode(x), model.encode(x)
    assert code.log_prob.dtype == jnp.float32
    assert all(latent.dtype == jnp.float32 for latent in code.latents)
    bits = (code.log_prob - expected.log_prob) / (model.config.dimensions * np.log(2))
    assert 0 < float(abs(bits).max()) < 0.05  # not the same, and near; trained models come nearer
    parameters = zip(jax.tree.leaves(rounded), jax.tree.leaves(model), strict=True)
    assert all(bool((a == b).all()) for a, b in parameters)
    # Decoded in the type that encoded it, an image comes back; in the other, less so.
    own = float(jnp.abs(rounded.decode(code.latents) - x).max())
    other = float(jnp.abs(model.decode(code.latents) - x).max())
    assert own < other


def test_bfloat16_and_reversible_are_refused_together() -> None:
    model, _ = build(jnp.float32)
    with pytest.raises(GlowError, match="use remat with bfloat16, or float32"):
        computing(model, memory="reversible", dtype="bfloat16")
    with pytest.raises(GlowError, match="dtype is bfloat16; it must be float32 where memory is"):
        parse_training(["--memory", "reversible", "--dtype", "bfloat16"])


LEVEL = {"xla_backend_optimization_level": 1}
UNKNOWN = "INVALID_ARGUMENT: No such compile option: 'xla_cpu_use_fusion_emitters'"


@pytest.mark.parametrize(
    ("backend", "error", "expected"),
    [
        ("gpu", None, {}),
        ("cpu", None, LEVEL | {"xla_cpu_use_fusion_emitters": False}),
        ("cpu", jax.errors.JaxRuntimeError(UNKNOWN), LEVEL),
    ],
)
def test_the_compiler_gets_no_option_that_it_does_not_know(
    backend: str, error: Exception | None, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "jit", MagicMock(side_effect=error))
    assert fast_to_compile.__wrapped__() == expected


def test_other_errors_of_the_compiler_are_not_taken_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = jax.errors.JaxRuntimeError("INTERNAL: out of memory")
    monkeypatch.setattr(jax, "jit", MagicMock(side_effect=error))
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        fast_to_compile.__wrapped__()


@pytest.fixture
def no_cache():
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def chosen_folder() -> str | None:
    return jax.config.values["jax_compilation_cache_dir"]


def test_compiled_programs_are_kept_in_the_users_own_folder(
    no_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keep_compiled_programs()
    folder = tmp_path / "cache" / "glow_jax"
    assert chosen_folder() == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_a_second_start_compiles_nothing_that_the_first_did(tmp_path: Path) -> None:
    variables = {key: value for key, value in os.environ.items() if "COMPILATION_CACHE" not in key}
    variables["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    # However short its compilation, every program is kept.
    variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def start(seed: int) -> dict[str, int]:
        """Names of kept programs after a run of one epoch, and when they were written."""
        script = Path(__file__).parents[1] / "train.py"
        flags = "--preset digits --K 1 --L 1 --hidden_channels 4 --epochs 1 --warmup 1 --seed"
        subprocess.run(
            [
                sys.executable,
                script,
                *flags.split(),
                str(seed),
                "--output_dir",
                tmp_path / str(seed),
            ],
            env=variables,
            check=True,
            capture_output=True,
        )
        kept = (tmp_path / "cache" / "glow_jax").glob("*-cache")
        return {path.name: path.stat().st_mtime_ns for path in kept}

    first = start(1)
    assert len(first) > 5
    assert start(2) == first


def test_a_folder_that_others_can_write_is_not_trusted(
    no_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "glow_jax").mkdir()
    os.chmod(tmp_path / "glow_jax", 0o777)
    keep_compiled_programs()
    assert chosen_folder() is None
    assert "can be written by others" in capsys.readouterr().err


def test_a_folder_that_the_user_chose_stays(no_cache: None, tmp_path: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    keep_compiled_programs()
    assert chosen_folder() == str(tmp_path)


@pytest.mark.parametrize("LU_decomposed", [True, False])
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="LAPACK is the CPU's")
def test_no_kernel_takes_a_batch_of_matrices(LU_decomposed: bool) -> None:
    # Batched, jaxlib's wait in a thread for other threads: two at once on two cores never ended.
    config = ModelConfig(
        K=3, L=2, hidden_channels=4, image_shape=(8, 8, 1), LU_decomposed=LU_decomposed, y_classes=0
    )
    key, x = jax.random.key(0), jnp.zeros((2, *config.image_shape))
    build_model = jax.jit(lambda key: Glow(config, rngs=nnx.Rngs(key)))
    model = build_model(key)
    noise = model.encode(x).noise
    programs = {
        "build": build_model.lower(key),
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
        assert calls or name == "gradient", name  # there is something to look at
        assert not [line for line in calls if re.search(r"f32\[\d+,\d+,\d+\]", line)], name
