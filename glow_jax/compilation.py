"""Compiled programs, kept for the next start."""

import os
import stat
import sys
from pathlib import Path

import jax

_FOLDER = "glow_jax"
_SECONDS = 0.3


def keep_compiled_programs() -> None:
    """Let JAX keep what it compiles in the user's own cache folder, and find it there again.

    JAX runs what it finds there, so a folder that others can write is not used. A folder that the
    user has chosen (`JAX_COMPILATION_CACHE_DIR`) stays; `JAX_ENABLE_COMPILATION_CACHE=false`
    switches the cache off.
    """
    if jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / _FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:  # no home to write in: compile anew each time
        return
    if sys.platform != "win32" and (
        found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        print(
            f"warning: {folder} can be written by others, so compiled programs are not kept there",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
