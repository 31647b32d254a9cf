"""Glow (Kingma & Dhariwal 2018) in JAX and Flax, bridged to PyTorch.

What it offers is listed in `glow_jax.api` and imported when it is first asked for: that takes
seconds, in which a script should already know what to do with Ctrl-C.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glow_jax.api import *  # noqa: F403
    from glow_jax.api import __all__ as __all__

    __version__: str
else:

    def __getattr__(name):
        """The version, a module of the package, or a name of `glow_jax.api`."""
        if name == "__version__":
            return _version()
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        if importlib.util.find_spec(f"glow_jax.{name}") is not None:
            return importlib.import_module(f"glow_jax.{name}")
        offered = vars(importlib.import_module("glow_jax.api"))
        if name not in offered:
            raise AttributeError(f"module 'glow_jax' has no attribute {name!r}")
        return offered[name]

    def _version():
        """What pip has noted of the installed package, so that pyproject.toml alone states it."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("glow-jax")
        except PackageNotFoundError:
            raise AttributeError("glow-jax is not installed here, so it has no version") from None

    def __dir__():
        """What can be completed: the names of `glow_jax.api` too."""
        return [*globals(), "__version__", *__getattr__("__all__")]
