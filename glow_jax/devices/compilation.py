"""Programs that run once, and compiled programs kept for the next start."""

import os
import stat
import sys
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import jax

from glow_jax.compiler import quick_jit
from glow_jax.files import user_cache

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")
# A program that compiles faster than this compiles about as fast as it is found in the cache.
_WORTH_KEEPING_SECONDS = 0.1


def run_once(function: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
    """Compile a function with little optimisation and call it; for functions that run once."""
    return quick_jit(function)(*arguments)


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
