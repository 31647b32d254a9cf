"""Glow in PyTorch, in the parameter layout of the published weights.

The model of Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions"
(arXiv:1807.03039), section 3, over the multi-scale architecture of Dinh et al., "Density
estimation using Real NVP" (arXiv:1605.08803), section 3.6. Keys, shapes and order of its state
dict are those of the y0ast/Glow-PyTorch checkpoints, so such files load with ``strict=True``.

Tensors are NCHW; B is the batch, and a level works on C channels of h x w pixels. A step's actnorm
and channel mixing are both affine in the channels, as are a convolution and the per-channel scaling
that follows it, so each such pair runs as a single convolution with a combined kernel: that saves
passes over the wide hidden activations, which on a CPU cost as much as they compute.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Code(NamedTuple):
    """What `Glow.encode` makes of a batch; log probabilities are densities of x, in nats."""

    latents: tuple[Tensor, ...]
    """One tensor a level, finest first: L - 1 of (B, C/2, h, w), then the top's (B, C, h, w)."""
    noise: tuple[Tensor, ...]
    """The latents less their prior's mean, over its standard deviation."""
    log_prob: Tensor
    """(B,)"""
    level_log_prob: Tensor
    """(B, L): a level's log-determinants plus the log density of what it factors out."""
    log_det: Tensor
    """(B,): the sum of all log-determinants."""


class ActNorm(nn.Module):
    """Per-channel affine map ``(x + bias) * exp(logs)``; paper section 3.1.

    It starts as the identity; only `initialise` looks at data.
    """

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        """Makes the identity; `initialise` gives outputs a standard deviation of `scale`."""
        super().__init__()
        self.scale = scale
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, channels, 1, 1))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Sets bias and logs so that x (B, C, h, w) comes out normalised in each channel."""
        mean = x.mean((0, 2, 3), keepdim=True)
        deviation = (x - mean).square().mean((0, 2, 3), keepdim=True).sqrt()
        self.bias.copy_(-mean)
        self.logs.copy_(torch.log(self.scale / (deviation + 1e-6)))


class ActNormConv(nn.Module):
    """A "same" convolution without bias, then an actnorm: the hidden layers of a coupling net."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        """Draws the kernel from N(0, 0.05^2)."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding="same", bias=False)
        self.actnorm = ActNorm(out_channels)
        nn.init.normal_(self.conv.weight, std=0.05)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, h, w) to (B, out, h, w)."""
        scale = self.actnorm.logs.exp().flatten()
        kernel = self.conv.weight * scale[:, None, None, None]
        return F.conv2d(x, kernel, self.actnorm.bias.flatten() * scale, padding="same")


class ScaledConv(nn.Module):
    """A 3x3 convolution scaled by ``exp(3 * logs)``, zero at first; paper section 3.3."""

    def __init__(self, in_channels: int, out_channels: int, pad_ones: bool) -> None:
        """Makes the zero map; its input is padded with ones if `pad_ones`, else with zeros."""
        super().__init__()
        self.pad_ones = pad_ones
        self.logs = nn.Parameter(torch.zeros(out_channels, 1, 1))
        self.conv = nn.Conv2d(in_channels, out_channels, 3)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, h, w) to (B, out, h, w)."""
        scale = torch.exp(3 * self.logs)
        kernel = self.conv.weight * scale[:, None]
        bias = cast(Tensor, self.conv.bias) * scale.flatten()
        if self.pad_ones:
            return F.conv2d(F.pad(x, (1, 1, 1, 1), value=1.0), kernel, bias)
        return F.conv2d(x, kernel, bias, padding=1)


class ScaledLinear(nn.Module):
    """A linear map scaled by ``exp(3 * logs)``, zero at first."""

    def __init__(self, in_features: int, out_features: int) -> None:
        """Makes the zero map."""
        super().__init__()
        self.logs = nn.Parameter(torch.zeros(out_features))
        self.linear = nn.Linear(in_features, out_features)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in) to (B, out)."""
        return self.linear(x) * torch.exp(3 * self.logs)


class Permutation(nn.Module):
    """A fixed order of the channels: output channel i is input channel ``indices[i]``.

    `indices` (C,) is in no state dict, as in the published layout: whoever restores a shuffled
    model has to bring the indices, and set them by ``module.indices.copy_(...)``.
    """

    indices: Tensor

    def __init__(self, indices: Tensor) -> None:
        """Keeps the order."""
        super().__init__()
        self.register_buffer("indices", indices, persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the one-hot matrix (C, C) and its log absolute determinant ()."""
        return F.one_hot(self.indices), self.indices.new_zeros(())

    def inverse(self) -> Tensor:
        """Returns the inverse matrix (C, C)."""
        return F.one_hot(self.indices).T


class InvConv(nn.Module):
    """Invertible 1x1 convolution with a free matrix; paper section 3.2."""

    def __init__(self, channels: int) -> None:
        """Draws an orthogonal matrix."""
        super().__init__()
        self.weight = nn.Parameter(random_orthogonal(channels))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the matrix (C, C), [out, in], and its log absolute determinant ()."""
        return self.weight, torch.linalg.slogdet(self.weight).logabsdet

    def inverse(self) -> Tensor:
        """Returns the inverse matrix (C, C)."""
        return torch.linalg.inv(self.weight)


class InvConvLU(nn.Module):
    """Invertible 1x1 convolution with ``W = P L (U + diag(s))``; paper section 3.2, equation 10.

    `lower` and `upper` are whole matrices of which only the strict triangles are used: weight decay
    moves the rest too, and the files keep it.
    """

    p: Tensor
    sign_s: Tensor

    def __init__(self, channels: int) -> None:
        """Draws an orthogonal matrix, and factorises it."""
        super().__init__()
        p, lower, upper = torch.linalg.lu(random_orthogonal(channels))
        s = upper.diagonal()
        self.lower = nn.Parameter(lower)
        self.log_s = nn.Parameter(s.abs().log())
        self.upper = nn.Parameter(upper.triu(1))
        self.register_buffer("p", p)
        self.register_buffer("sign_s", s.sign())

    def _upper(self) -> Tensor:
        return self.upper.triu(1) + torch.diag(self.sign_s * self.log_s.exp())

    def forward(self) -> tuple[Tensor, Tensor]:
        """Returns the matrix (C, C), [out, in], and its log absolute determinant ()."""
        upper = self._upper()
        return self.p @ (self.lower.tril(-1) @ upper + upper), self.log_s.sum()

    def inverse(self) -> Tensor:
        """Returns the inverse matrix (C, C)."""
        half = torch.linalg.solve_triangular(
            self.lower.tril(-1), self.p.T, upper=False, unitriangular=True
        )
        return torch.linalg.solve_triangular(self._upper(), half, upper=True)


class Step(nn.Module):
    """One step of flow: actnorm, channel mixing, coupling; paper figure 2a and table 1."""

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        permutation: InvConv | InvConvLU | Permutation,
        affine: bool,
        actnorm_scale: float,
        pad_ones: bool,
    ) -> None:
        """Makes a step whose coupling starts as (all but) the identity."""
        super().__init__()
        self.affine = affine
        self.actnorm = ActNorm(channels, actnorm_scale)
        self.invconv = permutation
        # In place is safe: a convolution's backward pass needs its input, never its output.
        self.block = nn.Sequential(
            ActNormConv(channels // 2, hidden_channels, 3),
            nn.ReLU(inplace=True),
            ActNormConv(hidden_channels, hidden_channels, 1),
            nn.ReLU(inplace=True),
            ScaledConv(hidden_channels, channels if affine else channels // 2, pad_ones),
        )

    def _mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        matrix, log_det = self.invconv()
        kernel = matrix * self.actnorm.logs.exp().flatten()
        x = F.conv2d(x, kernel[:, :, None, None], kernel @ self.actnorm.bias.flatten())
        return x, (log_det + self.actnorm.logs.sum()) * (x.shape[2] * x.shape[3])

    def _shift_and_log_scale(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        h = self.block(kept)
        return h[:, 0::2], F.logsigmoid(h[:, 1::2] + 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the step's output (B, C, h, w) and its log-determinant, (B,) or ()."""
        x, log_det = self._mix(x)
        kept, moved = x.chunk(2, dim=1)
        if not self.affine:
            return torch.cat((kept, moved + self.block(kept)), dim=1), log_det
        shift, log_scale = self._shift_and_log_scale(kept)
        moved = (moved + shift) * log_scale.exp()
        return torch.cat((kept, moved), dim=1), log_det + log_scale.sum((1, 2, 3))

    def inverse(self, y: Tensor) -> Tensor:
        """Returns the input (B, C, h, w) that gives the output y."""
        kept, moved = y.chunk(2, dim=1)
        if self.affine:
            h = self.block(kept)
            moved = moved * (1 + torch.exp(-h[:, 1::2] - 2)) - h[:, 0::2]
        else:
            moved = moved - self.block(kept)
        kernel = self.invconv.inverse() * torch.exp(-self.actnorm.logs).view(-1, 1)
        y = torch.cat((kept, moved), dim=1)
        return F.conv2d(y, kernel[:, :, None, None], -self.actnorm.bias.flatten())

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Sets the step's actnorms, each on what the ones before let through; returns output."""
        self.actnorm.initialise(x)
        h = self._mix(x)[0].chunk(2, dim=1)[0]
        for layer in self.block:
            if isinstance(layer, ActNormConv):
                layer.actnorm.initialise(layer.conv(h))
            h = layer(h)
        return self(x)[0]


class Split(nn.Module):
    """The prior of the half of the channels that a level factors out, given the other half."""

    def __init__(self, channels: int, pad_ones: bool) -> None:
        """Makes a standard normal, for a level of `channels` channels."""
        super().__init__()
        self.conv = ScaledConv(channels // 2, channels, pad_ones)

    def forward(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log standard deviation, (B, C/2, h, w) each, given the kept half."""
        h = self.conv(kept)
        return h[:, 0::2], h[:, 1::2]


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
        actnorm_scale: float = 1.0,
        pad_ones: bool = False,
    ) -> None:
        """Draws initial values from torch's global generator.

        Args:
            image_shape: (H, W, C) of the images; H and W must be multiples of 2^L.
            K: Steps of flow a level.
            L: Levels.
            hidden_channels: Width of the coupling nets.
            flow_permutation: How a step mixes channels: a learned 1x1 convolution, the reversed
                order, or an order drawn here (see `Permutation`).
            flow_coupling: Kind of the coupling layers.
            LU_decomposed: Whether the 1x1 convolutions are LU-factorised; one value a level, or one
                for all.
            learn_top: Whether the top prior is learned rather than a standard normal.
            y_condition: Whether labels shift the top prior, and are predicted from the top latent.
            y_classes: Number of classes.
            actnorm_scale: Standard deviation that `initialise` gives after the steps' own actnorms.
            pad_ones: Whether the last convolution of coupling nets and priors pads with ones
                (as in rosinality/glow-pytorch) rather than zeros.
        """
        super().__init__()
        height, width, channels = image_shape
        if height % 2**L or width % 2**L:
            raise ValueError(f"{height} x {width} images cannot be halved {L} times")
        if flow_permutation not in ("invconv", "reverse", "shuffle"):
            raise ValueError(f"unknown flow_permutation {flow_permutation!r}")
        if flow_coupling not in ("affine", "additive"):
            raise ValueError(f"unknown flow_coupling {flow_coupling!r}")
        lu = (LU_decomposed,) * L if isinstance(LU_decomposed, bool) else LU_decomposed
        if len(lu) != L:
            raise ValueError(f"LU_decomposed has {len(lu)} values for {L} levels")

        self.K, self.L = K, L
        self.learn_top, self.y_condition = learn_top, y_condition

        def permutation(level: int) -> InvConv | InvConvLU | Permutation:
            if flow_permutation == "invconv":
                return InvConvLU(channels) if lu[level] else InvConv(channels)
            if flow_permutation == "reverse":
                return Permutation(torch.arange(channels - 1, -1, -1))
            return Permutation(torch.randperm(channels))

        affine = flow_coupling == "affine"
        layers: list[nn.Module] = []
        for level in range(L):
            channels *= 4
            layers.append(nn.PixelUnshuffle(2))
            layers += [
                Step(channels, hidden_channels, permutation(level), affine, actnorm_scale, pad_ones)
                for _ in range(K)
            ]
            if level < L - 1:
                layers.append(Split(channels, pad_ones))
                channels //= 2
        self.flow = Flow(layers)
        self.register_buffer("prior_h", torch.zeros(1, 2 * channels, height // 2**L, width // 2**L))
        if learn_top:
            self.learn_top_fn = ScaledConv(2 * channels, 2 * channels, pad_ones)
        if y_condition:
            self.project_ycond = ScaledLinear(y_classes, 2 * channels)
            self.project_class = ScaledLinear(channels, y_classes)

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
        if not self.y_condition:
            raise ValueError("only a model with y_condition classifies")
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


def random_orthogonal(size: int) -> Tensor:
    """Draws an orthogonal matrix (size, size): the Q of a Gaussian matrix."""
    return torch.linalg.qr(torch.randn(size, size)).Q


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
    if y is None:
        return value
    logits = model.classify(code.latents[-1])
    if multi_class:
        return value + y_weight * F.binary_cross_entropy_with_logits(logits, y)
    return value + y_weight * F.cross_entropy(logits, y)
