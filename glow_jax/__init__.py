"""Glow (Kingma & Dhariwal 2018) in JAX and Flax, bridged to PyTorch."""

from glow_jax.config import Config, ModelConfig
from glow_jax.errors import GlowError
from glow_jax.model import Code, Glow, initialise_actnorm
from glow_jax.pixels import bits_per_dim, dequantize, to_pixels
from glow_jax.runs.checkpoint import load

__all__ = [
    "Code",
    "Config",
    "Glow",
    "GlowError",
    "ModelConfig",
    "bits_per_dim",
    "dequantize",
    "initialise_actnorm",
    "load",
    "to_pixels",
]
