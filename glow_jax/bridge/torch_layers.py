"""The layers of the PyTorch Glow: actnorms, convolutions, channel mixing, steps and splits.

Tensors are NCHW; B is the batch, and a level works on C channels of h x w pixels. A step's actnorm
and channel mixing are both affine in the channels, as are a convolution and the per-channel scaling
that follows it, so each such pair runs as one convolution with a combined kernel. That saves passes
over the wide hidden activations, which on a CPU cost as much as the convolutions.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    `indices` (C,) is in no state dict, as in the published layout: to restore a shuffled model, set
    them by ``module.indices.copy_(...)``.
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


Mixing = InvConv | InvConvLU | Permutation


def make_mixing(channels: int, flow_permutation: str, lu: bool) -> Mixing:
    """Makes the channel mixing of a step; the arguments are those of `torch_glow.Glow`."""
    if flow_permutation == "invconv":
        return InvConvLU(channels) if lu else InvConv(channels)
    if flow_permutation == "reverse":
        return Permutation(torch.arange(channels - 1, -1, -1))
    return Permutation(torch.randperm(channels))


class Step(nn.Module):
    """One step of flow: actnorm, channel mixing, coupling; paper figure 2a and table 1."""

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        permutation: Mixing,
        affine: bool,
        actnorm_scale: float,
        pad_ones: bool,
    ) -> None:
        """Makes a step whose coupling starts as the identity, or close to it if affine."""
        super().__init__()
        self.affine = affine
        self.actnorm = ActNorm(channels, actnorm_scale)
        self.invconv = permutation
        # In place is safe: the backward pass of a convolution does not need its output.
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
        """Sets the step's actnorms in order, each from its own input; returns the output."""
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


def random_orthogonal(size: int) -> Tensor:
    """Draws an orthogonal matrix (size, size): the Q of a Gaussian matrix."""
    return torch.linalg.qr(torch.randn(size, size)).Q
