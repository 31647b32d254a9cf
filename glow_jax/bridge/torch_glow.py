"""Glow in PyTorch, in the parameter layout of the published weights.

The model of Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions"
(arXiv:1807.03039), section 3, over the multi-scale architecture of Dinh et al., "Density
estimation using Real NVP" (arXiv:1605.08803), section 3.6. Keys, shapes and order of its state
dict are those of the y0ast/Glow-PyTorch checkpoints, so such files load with ``strict=True``.

Tensors are NCHW; B is the batch, and a level works on C channels of h x w pixels.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glow_jax.bridge.torch_layers import ScaledConv, ScaledLinear, Split, Step
from glow_jax.bridge.torch_mixing import make_mixing


class Code(NamedTuple):
    """The result of `Glow.encode`; log probabilities are log densities of x, in nats."""

    latents: tuple[Tensor, ...]
    """One tensor a level, finest first: L - 1 of (B, C/2, h, w), then the top's (B, C, h, w)."""
    noise: tuple[Tensor, ...]
    """(latent - mean) / sd of its prior, in the shapes of the latents."""
    log_prob: Tensor
    """(B,)"""
    level_log_prob: Tensor
    """(B, L): a level's log-determinants plus the log density of the latent it factors out."""
    log_det: Tensor
    """(B,): the sum of all log-determinants."""


class Flow(nn.Module):
    """Holds the layers, so that their keys begin as in the published layout."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        """Keeps the layers: for every level a squeeze, K steps and, but for the last, a split."""
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Glow(nn.Module):
    """Glow: exact likelihood, latents and sampling of images."""

    prior_h: Tensor

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        K: int = 32,
        L: int = 3,
        hidden_channels: int = 512,
        flow_permutation: Literal["invconv", "reverse", "shuffle"] = "invconv",
        flow_coupling: Literal["affine", "additive"] = "affine",
        LU_decomposed: bool | tuple[bool, ...] = True,
        learn_top: bool = True,
        y_condition: bool = False,
        y_classes: int = 10,
        classifier: bool = True,
        actnorm_scale: float = 1.0,
        actnorm_logs_factor: float = 1.0,
        padding: Literal["zeros", "ones", "edge_bias"] = "zeros",
    ) -> None:
        """Draws initial values from torch's global generator.

        Args:
            image_shape: (H, W, C) of the images; H and W must be multiples of 2^L.
            K: Number of steps of flow in a level.
            L: Number of levels.
            hidden_channels: Width of the coupling nets.
            flow_permutation: How a step mixes channels: a learned 1x1 convolution, the reversed
                order, or an order drawn here (see `Permutation`).
            flow_coupling: Kind of the coupling layers.
            LU_decomposed: Whether the 1x1 convolutions are LU-factorised; one value for each level,
                or one for all.
            learn_top: Whether the top prior is learned rather than a standard normal.
            y_condition: Whether labels shift the top prior.
            y_classes: Number of classes.
            classifier: Whether a conditional model predicts labels from the top latent.
            actnorm_scale: Standard deviation that `initialise` gives after the steps' own actnorms.
            actnorm_logs_factor: What all actnorms multiply their logarithms by; 3 in openai/glow.
            padding: What surrounds the input of 3x3 convolutions: zeros; ones, for the last
                convolution of coupling nets and for priors (as in rosinality/glow-pytorch); or an
                edge bias (as in openai/glow), see `torch_layers.surround`.
        """
        super().__init__()
        lu = _lu_by_level(LU_decomposed, L)
        _check(image_shape, L, flow_permutation, flow_coupling)
        self.K, self.L, self.learn_top, self.y_condition = K, L, learn_top, y_condition
        height, width, channels = image_shape
        affine = flow_coupling == "affine"
        layers: list[nn.Module] = []
        for level in range(L):
            channels *= 4
            layers.append(nn.PixelUnshuffle(2))
            for _ in range(K):
                mixing = make_mixing(channels, flow_permutation, lu[level])
                options = (actnorm_scale, actnorm_logs_factor, padding)
                layers.append(Step(channels, hidden_channels, mixing, affine, *options))
            if level < L - 1:
                layers.append(Split(channels, padding))
                channels //= 2
        self.flow = Flow(layers)
        self.register_buffer("prior_h", torch.zeros(1, 2 * channels, height // 2**L, width // 2**L))
        if learn_top:
            self.learn_top_fn = ScaledConv(2 * channels, 2 * channels, padding)
        if y_condition:
            self.project_ycond = ScaledLinear(y_classes, 2 * channels)
        self.project_class = (
            ScaledLinear(channels, y_classes) if y_condition and classifier else None
        )

    def steps(self, level: int) -> list[Step]:
        """Returns the K steps of a level (0 the finest), in the order of encoding."""
        first = level * (self.K + 2) + 1
        return cast(list[Step], list(self.flow.layers[first : first + self.K]))

    def top_prior(self, batch: int, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns mean and log standard deviation of the top latent, (B, C, h, w) each."""
        if self.y_condition != (y is not None):
            raise ValueError("labels go with a model that has y_condition, and with no other")
        h = self.learn_top_fn(self.prior_h) if self.learn_top else self.prior_h
        if y is not None:
            h = h + self.project_ycond(y)[:, :, None, None]
        mean, logs = h.expand(batch, -1, -1, -1).chunk(2, dim=1)
        return mean, logs

    def _split_prior(self, level: int, kept: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.layers[level * (self.K + 2) + self.K + 1](kept)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Code:
        """Maps images to latents and log densities.

        Args:
            x: Images (B, C, H, W), about [-0.5, 0.5), in the parameters' dtype.
            y: One-hot or multi-hot labels (B, classes), where the model is conditional.

        Returns:
            The code. Its log probabilities hold no dequantisation term.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        latents, noise, densities, log_dets = [], [], [], []
        for level in range(self.L):
            x = F.pixel_unshuffle(x, 2)
            log_det = x.new_zeros(len(x))
            for step in self.steps(level):
                x, step_log_det = step(x)
                log_det = log_det + step_log_det
            if level < self.L - 1:
                x, z = x.chunk(2, dim=1)
                mean, logs = self._split_prior(level, x)
            else:
                z = x
                mean, logs = self.top_prior(len(x), y)
            unit = (z - mean) * torch.exp(-logs)
            density = -(logs + 0.5 * unit.square()).sum((1, 2, 3))
            latents.append(z)
            noise.append(unit)
            densities.append(density - 0.5 * math.log(2 * math.pi) * z[0].numel())
            log_dets.append(log_det)
        log_det = torch.stack(log_dets, dim=1)
        level_log_prob = log_det + torch.stack(densities, dim=1)
        log_prob = level_log_prob.sum(1)
        return Code(tuple(latents), tuple(noise), log_prob, level_log_prob, log_det.sum(1))

    forward = encode

    def decode(self, latents: Sequence[Tensor | None], y: Tensor | None = None) -> Tensor:
        """Maps latents to images; the inverse of `encode`.

        Args:
            latents: L tensors, finest first, as `Code.latents`; None is the mean of its prior.
            y: As for `encode`.

        Returns:
            Images (B, C, H, W).
        """
        return self._decode(latents, y, unit=False)

    def decode_noise(self, noise: Sequence[Tensor | None], y: Tensor | None = None) -> Tensor:
        """As `decode`, from standard normal coordinates as `Code.noise`: a sample if so drawn."""
        return self._decode(noise, y, unit=True)

    def _decode(self, parts: Sequence[Tensor | None], y: Tensor | None, unit: bool) -> Tensor:
        if len(parts) != self.L:
            raise ValueError(f"{len(parts)} latents for {self.L} levels")
        batch = next((len(part) for part in (*parts, y) if part is not None), 1)
        mean, logs = self.top_prior(batch, y)
        x = mean.new_empty(batch, 0, *mean.shape[2:])
        for level in reversed(range(self.L)):
            if level < self.L - 1:
                mean, logs = self._split_prior(level, x)
            part = parts[level]
            if part is None:
                part = mean
            elif unit:
                part = mean + logs.exp() * part
            x = torch.cat((x, part), dim=1).contiguous(memory_format=torch.channels_last)
            for step in reversed(self.steps(level)):
                x = step.inverse(x)
            x = F.pixel_shuffle(x, 2)
        return x

    def classify(self, top_latent: Tensor) -> Tensor:
        """Returns class logits (B, classes) from the top latent (B, C, h, w)."""
        if self.project_class is None:
            raise ValueError("the model has no classifier")
        return self.project_class(top_latent.mean((2, 3)))

    @torch.no_grad()
    def initialise(self, x: Tensor, y: Tensor | None = None) -> None:
        """Sets every actnorm from the images x (B, C, H, W), in one pass; paper section 3.1.

        Labels may be given, as to `encode`, but no actnorm's input depends on them.
        """
        del y
        x = x.contiguous(memory_format=torch.channels_last)
        for level in range(self.L):
            x = F.pixel_unshuffle(x, 2)
            for step in self.steps(level):
                x = step.initialise(x)
            if level < self.L - 1:
                x = x.chunk(2, dim=1)[0]


def _check(
    image_shape: tuple[int, int, int], L: int, flow_permutation: str, flow_coupling: str
) -> None:
    height, width, _ = image_shape
    if height % 2**L or width % 2**L:
        raise ValueError(f"{height} x {width} images cannot be halved {L} times")
    if flow_permutation not in ("invconv", "reverse", "shuffle"):
        raise ValueError(f"unknown flow_permutation {flow_permutation!r}")
    if flow_coupling not in ("affine", "additive"):
        raise ValueError(f"unknown flow_coupling {flow_coupling!r}")


def _lu_by_level(LU_decomposed: bool | tuple[bool, ...], L: int) -> tuple[bool, ...]:
    lu = (LU_decomposed,) * L if isinstance(LU_decomposed, bool) else LU_decomposed
    if len(lu) != L:
        raise ValueError(f"LU_decomposed has {len(lu)} values for {L} levels")
    return lu


def bits_per_dim(log_prob: Tensor, image_shape: tuple[int, int, int], n_bits: int = 8) -> Tensor:
    """Turns log densities of dequantised images, in nats, into bits a dimension.

    Args:
        log_prob: (B,), of images in [-0.5, 0.5).
        image_shape: (H, W, C).
        n_bits: Depth of the images; a bin is 2^-n_bits wide.

    Returns:
        (B,): paper section 2, equation 2, where the bin's width enters as D log 2^n_bits.
    """
    return n_bits - log_prob / (math.prod(image_shape) * math.log(2))


def loss(
    model: Glow,
    x: Tensor,
    y: Tensor | None = None,
    y_weight: float = 0.01,
    multi_class: bool = False,
    n_bits: int = 8,
) -> Tensor:
    """The training loss: mean bits a dimension, plus the weighted classification loss in nats.

    Args:
        model: The model.
        x: Dequantised images (B, C, H, W).
        y: As for `Glow.encode`.
        y_weight: Weight of the classification loss.
        multi_class: Whether an image can have several labels; then binary cross entropy.
        n_bits: Depth of the images.

    Returns:
        A scalar.
    """
    code = model(x, y)
    channels, height, width = x.shape[1:]
    value = bits_per_dim(code.log_prob, (height, width, channels), n_bits).mean()
    if y is None or model.project_class is None:
        return value
    logits = model.classify(code.latents[-1])
    if multi_class:
        return value + y_weight * F.binary_cross_entropy_with_logits(logits, y)
    return value + y_weight * F.cross_entropy(logits, y)
