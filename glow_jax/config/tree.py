"""The root of the configuration tree."""

from dataclasses import dataclass, field

from glow_jax.config.data import DataConfig
from glow_jax.config.model import ModelConfig
from glow_jax.config.optimizer import OptimizerConfig
from glow_jax.config.output import OutputConfig
from glow_jax.config.training import TrainingConfig


@dataclass(frozen=True)
class Config:
    """The configuration of a run."""

    preset: str | None = None
    """named set of defaults, which other flags override, such as digits; a wrong name lists all"""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
