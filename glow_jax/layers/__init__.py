"""The bijections and priors that a Glow is made of."""

from glow_jax.layers.actnorm import ActNorm
from glow_jax.layers.bijection import Bijection, Buffer
from glow_jax.layers.conv1x1 import Conv1x1, Conv1x1LU
from glow_jax.layers.coupling import AdditiveCoupling, AffineCoupling
from glow_jax.layers.permutation import Reverse, Shuffle
from glow_jax.layers.prior import DiagonalGaussian, TopPrior, ZeroLinear
from glow_jax.layers.sigmoid import Sigmoid
from glow_jax.layers.split import Split
from glow_jax.layers.squeeze import Squeeze

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "Buffer",
    "Conv1x1",
    "Conv1x1LU",
    "DiagonalGaussian",
    "Reverse",
    "Shuffle",
    "Sigmoid",
    "Split",
    "Squeeze",
    "TopPrior",
    "ZeroLinear",
]
