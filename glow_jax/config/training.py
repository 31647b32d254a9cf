"""The length of a run, its batches, and its initial state."""

from dataclasses import dataclass
from typing import Literal

from glow_jax.config.checks import check_choices, require


@dataclass(frozen=True)
class TrainingConfig:
    """How long to train, in what batches, and from what initial state."""

    batch_size: int = 64
    """images in a batch, over all devices"""
    accumulate: int = 1
    """batches per update, whose gradients are averaged: as one larger batch, in less memory"""
    eval_batch_size: int = 512
    """images in an evaluation batch, over all devices"""
    epochs: int = 250
    """passes over the training images"""
    n_init_batches: int = 8
    """batches that initialise the actnorms, all at once on one device"""
    y_weight: float = 0.01
    """weight of the classification loss, in nats, beside bits/dim"""
    seed: int = 0
    """seed of everything random; 0 = choose one and print it"""
    memory: Literal["fast", "remat", "reversible"] = "remat"
    """what a gradient keeps: all that is slow to compute again, each step's input, or each level's
    output"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of the coupling networks"""
    precision: Literal["highest", "high", "default"] = "high"
    """precision of the coupling networks' convolutions on a GPU or TPU, by jax.lax's names; high is
    TF32 on a GPU, three bfloat16 passes on a TPU; with reversible memory it is always highest"""
    saved_model: str = ""
    """run folder, model folder or user/name on the Hugging Face Hub whose weights a new run starts
    from"""
    saved_optimizer: str = ""
    """run folder whose optimizer state and step a new run continues from"""

    def __post_init__(self) -> None:
        """Check every value."""
        check_choices(self)
        require(
            self.memory != "reversible" or self.dtype != "bfloat16",
            "dtype",
            self.dtype,
            "float32 where memory is reversible: in bfloat16 inputs cannot be reconstructed",
        )
        for name in ("batch_size", "accumulate", "eval_batch_size", "epochs", "n_init_batches"):
            value = getattr(self, name)
            require(value >= 1, name, value, "at least 1")
        require(self.y_weight >= 0, "y_weight", self.y_weight, "at least 0")
        require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        require(
            bool(self.saved_model) or not self.saved_optimizer,
            "saved_optimizer",
            self.saved_optimizer,
            "given together with saved_model",
        )

    @property
    def network_precision(self) -> Literal["highest", "high", "default"]:
        """The precision of the coupling networks' convolutions in training.

        Reversible memory has the highest: how well inputs are reconstructed at less is not measured
        on a GPU or TPU.
        """
        return "highest" if self.memory == "reversible" else self.precision

    @property
    def images_per_update(self) -> int:
        """Images in one update of the parameters."""
        return self.batch_size * self.accumulate
