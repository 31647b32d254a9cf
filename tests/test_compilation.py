"""Programs that compile fast, and are kept for the next start."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import MagicMock

import jax
import pytest

from glow_jax import compiler
from glow_jax.compiler import fast_to_compile, quick_jit
from glow_jax.devices.compilation import keep_compiled_programs

LEVEL = {"xla_backend_optimization_level": "1"}
UNKNOWN = "INVALID_ARGUMENT: No such compile option: 'xla_cpu_use_fusion_emitters'"


@pytest.fixture
def nothing_known() -> Iterator[None]:
    """The compiler is asked anew what it knows."""
    compiler._options_on_a_cpu.cache_clear()
    yield
    compiler._options_on_a_cpu.cache_clear()


@pytest.mark.optimised
@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize(
    ("platform", "error", "expected"),
    [
        ("gpu", None, {}),
        ("tpu", None, {}),
        ("cpu", None, LEVEL | {"xla_cpu_use_fusion_emitters": False}),
        ("cpu", jax.errors.JaxRuntimeError(UNKNOWN), LEVEL),
    ],
)
def test_the_compiler_gets_no_option_that_it_does_not_know(
    platform: str, error: Exception | None, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "jit", MagicMock(side_effect=error))
    assert fast_to_compile(platform) == expected


def test_without_optimisation_there_are_no_options() -> None:
    assert jax.config.values["jax_disable_most_optimizations"]  # by the suite
    assert fast_to_compile("cpu") == {}


@pytest.mark.optimised
@pytest.mark.usefixtures("nothing_known")
def test_other_errors_of_the_compiler_are_not_taken_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = jax.errors.JaxRuntimeError("INTERNAL: out of memory")
    monkeypatch.setattr(jax, "jit", MagicMock(side_effect=error))
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        fast_to_compile("cpu")


@pytest.fixture
def impossible_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "fast_to_compile", lambda platform: {f"no_{platform}": True})


def test_what_is_called_by_itself_gets_the_options(impossible_option: None) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option: 'no_cpu'"):
        quick_jit(lambda x: 2 * x)(1.0)


@pytest.mark.parametrize("inside", [jax.jit, jax.grad, jax.vmap, jax.make_jaxpr, jax.checkpoint])
def test_a_part_of_another_program_gets_no_options(
    inside: Callable[..., Callable[[jax.Array], object]], impossible_option: None
) -> None:
    double = quick_jit(lambda x: 2 * x)
    x = jax.numpy.ones(1) if inside is jax.vmap else jax.numpy.ones(())
    inside(lambda x: double(x) * double(1.0))(x)  # also where nothing traced is given to it


def test_static_arguments_stay_values() -> None:
    shape = quick_jit(lambda n: jax.numpy.zeros(n), static_argnames=("n",))(3).shape
    assert shape == (3,)


# What a user calls, and the same as a part of a program that is compiled as XLA does by itself.
COMPILE = """
import json, time
import jax
from flax import nnx
from glow_jax import Glow, ModelConfig

config = ModelConfig(K=2, L=3, hidden_channels=16, image_shape=(16, 16, 3), y_classes=0)
model = Glow(config, rngs=nnx.Rngs(0))
x = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
key = jax.random.key(2)

def seconds(function):
    started = time.process_time()
    jax.block_until_ready(function(model))
    return time.process_time() - started

def encode(model):
    return model.encode(x)

def sample(model):
    return model.sample(key, 4)

jax.block_until_ready((encode(model), sample(model)))  # what is needed once
jax.clear_caches()
print(json.dumps([(seconds(f), seconds(jax.jit(f))) for f in (encode, sample)]))
"""


@pytest.mark.slow
def test_encoding_and_sampling_compile_faster_than_by_xla_s_own_options() -> None:
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=variables,
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    )
    for quick, plain in json.loads(done.stdout):
        assert quick < 0.8 * plain


@pytest.fixture
def no_cache() -> Iterator[None]:
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
    variables = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
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
    no_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
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
