"""The optimizer."""

import math
from dataclasses import dataclass
from typing import Literal

from glow_jax.config.checks import check_choices, require


@dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated."""

    optimizer: Literal["adamax", "adam", "openai_adamax"] = "adamax"
    """algorithm; openai_adamax is that of openai/glow, without weight decay; the others have
    Glow-PyTorch's L2 weight decay of 5e-5"""
    lr: float = 5e-4
    """learning rate after the warm-up"""
    schedule: Literal["constant", "cosine"] = "constant"
    """learning rate after the warm-up: constant, or half a cosine from lr down to final_lr at the
    end of the last epoch; if a resumed run has other epochs, the cosine ends with those"""
    final_lr: float = 0
    """learning rate at which the cosine ends"""
    warmup: float = 5
    """epochs of linear warm-up, in one step per epoch, or of openai_adamax in one per update, from
    a rate of 0; may be a fraction"""
    polyak_epochs: float = 1
    """epochs over which openai_adamax remembers the largest gradient: beta2 = 1 - 1 / (updates per
    epoch * polyak_epochs)"""
    max_grad_clip: float = 0
    """clip every gradient entry to this size; 0 = off"""
    max_grad_norm: float = 0
    """clip the norm of the whole gradient to this; 0 = off"""
    ema_decay: float = 0
    """evaluate and sample with an exponential moving average of the parameters; 0 = off"""

    def __post_init__(self) -> None:
        """Check every value."""
        check_choices(self)
        require(self.lr > 0, "lr", self.lr, "above 0")
        if self.schedule == "cosine":
            require(0 <= self.final_lr <= self.lr, "final_lr", self.final_lr, "from 0 to lr")
        else:
            require(self.final_lr == 0, "final_lr", self.final_lr, "0 unless schedule is cosine")
        polyak_epochs = self.polyak_epochs
        require(0 < polyak_epochs < math.inf, "polyak_epochs", polyak_epochs, "above 0 and finite")
        for name in ("warmup", "max_grad_clip", "max_grad_norm"):
            value = getattr(self, name)
            require(value >= 0, name, value, "0 (off) or above")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "at least 0 and below 1")
