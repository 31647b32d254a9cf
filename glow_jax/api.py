"""What `import glow_jax` offers."""

from glow_jax.config import Config, ModelConfig
from glow_jax.data import load_dataset
from glow_jax.devices import keep_compiled_programs
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import evaluate
from glow_jax.hub import load
from glow_jax.model import Code, Glow, initialise_actnorm
from glow_jax.pixels import bits_per_dim, dequantize, to_pixels
from glow_jax.training.trainer import train

__all__ = [
    "Code",
    "Config",
    "Glow",
    "GlowError",
    "ModelConfig",
    "bits_per_dim",
    "dequantize",
    "evaluate",
    "initialise_actnorm",
    "keep_compiled_programs",
    "load",
    "load_dataset",
    "to_pixels",
    "train",
]
