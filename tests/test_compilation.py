"""Programs that compile fast, and are kept for the next start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import jax
import pytest

from glow_jax.compiler import fast_to_compile
from glow_jax.devices.compilation import keep_compiled_programs

LEVEL = {"xla_backend_optimization_level": "1"}
UNKNOWN = "INVALID_ARGUMENT: No such compile option: 'xla_cpu_use_fusion_emitters'"


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
    assert fast_to_compile.__wrapped__(platform) == expected


def test_other_errors_of_the_compiler_are_not_taken_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = jax.errors.JaxRuntimeError("INTERNAL: out of memory")
    monkeypatch.setattr(jax, "jit", MagicMock(side_effect=error))
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        fast_to_compile.__wrapped__("cpu")


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
