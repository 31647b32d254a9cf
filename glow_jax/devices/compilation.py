"""Fast compilation, and compiled programs kept for the next start."""

import os
import stat
import sys
from collections.abc import Callable
from functools import cache
from typing import TypeVar, TypeVarTuple

import jax

from glow_jax.files import user_cache

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")
# A program that compiles faster than this compiles about as fast as it is found in the cache.
_WORTH_KEEPING_SECONDS = 0.3
_OLDER_LOOPS = "xla_cpu_use_fusion_emitters"


@cache
def fast_to_compile(platform: str) -> dict[str, str | bool]:
    """Compiler options that make a program compile fast; there are none for GPUs and TPUs.

    On a CPU they are LLVM's optimisation level 1 and, if jaxlib still has it (0.10.2 does, 0.11.2
    does not), XLA's older way to generate loops. The published model's step compiles in 4 s with
    both, 6 s with the first, and 9 s with neither. It runs equally fast: its products are library
    calls.

    Args:
        platform: where the program will run: "cpu", "gpu" or "tpu".
    """
    if platform != "cpu":
        return {}
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}
    older_loops = {_OLDER_LOOPS: False}
    try:
        jax.jit(lambda: 0, compiler_options=older_loops).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if _OLDER_LOOPS not in str(error):  # "No such compile option" names it
            raise
        return options
    return options | older_loops


def run_once(function: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
    """Compile a function with little optimisation and call it; for functions that run once."""
    options = fast_to_compile(jax.local_devices()[0].platform)
    return jax.jit(function, compiler_options=options)(*arguments)


def keep_compiled_programs() -> None:
    """Let JAX keep compiled programs in the user's own cache folder and reuse them.

    JAX runs what it finds there, so a folder that others can write to is not used. A folder that
    the user has chosen (`JAX_COMPILATION_CACHE_DIR`) stays; `JAX_ENABLE_COMPILATION_CACHE=false`
    switches the cache off.
    """
    if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        return
    folder = user_cache()
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:  # no writable home: compile anew each time
        return
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        print(
            f"warning: {folder} can be written by others, so compiled programs are not kept there",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING_SECONDS)
