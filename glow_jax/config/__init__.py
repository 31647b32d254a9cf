"""The configuration of a run: one tree of frozen dataclasses.

The tree is saved as `hparams.json` in the run folder, and the flags of `train.py` are made from it.
If Glow-PyTorch has a flag, the field has its name and its default.
"""

from glow_jax.config.data import DataConfig
from glow_jax.config.json import from_json, to_json
from glow_jax.config.model import Dequantization, ModelConfig
from glow_jax.config.optimizer import OptimizerConfig
from glow_jax.config.output import OutputConfig
from glow_jax.config.training import TrainingConfig
from glow_jax.config.tree import Config

__all__ = [
    "Config",
    "DataConfig",
    "Dequantization",
    "ModelConfig",
    "OptimizerConfig",
    "OutputConfig",
    "TrainingConfig",
    "from_json",
    "to_json",
]
