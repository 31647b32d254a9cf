"""The bridge to other programs' checkpoints; the only part of glow_jax that imports torch."""

from glow_jax.errors import GlowError

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise GlowError("PyTorch is not installed: pip install 'glow-jax[torch]'.") from error
