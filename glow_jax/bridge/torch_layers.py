"""The layers of the PyTorch Glow: actnorms, convolutions, steps and splits.

Tensors are NCHW; B is the batch, and a level works on C channels of h x w pixels. A step's actnorm
and channel mixing are both affine in the channels, as are a convolution and the per-channel scaling
that follows it, so each such pair runs as one convolution with a combined kernel. That saves passes
over the wide hidden activations, which on a CPU cost as much as the convolutions.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glow_jax.bridge.torch_mixing import Mixing


class ActNorm(nn.Module):
    """Per-channel affine map ``(x + bias) * exp(factor * logs)``; paper section 3.1.

    It starts as the identity; only `initialise` looks at data.
    """

    def __init__(self, channels: int, scale: float = 1.0, factor: float = 1.0) -> None:
        """Makes the identity; `initialise` gives outputs a standard deviation of `scale`."""
        super().__init__()
        self.scale = scale
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, channels, 1, 1))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Sets bias and logs so that x (B, C, h, w) comes out normalised in each channel."""
        mean = x.mean((0, 2, 3), keepdim=True)
        deviation = (x - mean).square().mean((0, 2, 3), keepdim=True).sqrt()
        self.bias.copy_(-mean)
        self.logs.copy_(torch.log(self.scale / (deviation + 1e-6)) / self.factor)

    def log_scale(self) -> Tensor:
        """Returns the logarithm of each channel's scale, (C,)."""
        return self.factor * self.logs.flatten()


def surround(x: Tensor, padding: str) -> Tensor:
    """Pads x (B, C, h, w) by a pixel on each side, for a 3x3 convolution without padding.

    Args:
        x: The input.
        padding: "zeros"; "ones"; or "edge_bias": zeros, and a channel more that is one on the
            padding and zero inside, as openai/glow pads.

    Returns:
        (B, C, h + 2, w + 2), or with "edge_bias" (B, C + 1, h + 2, w + 2).
    """
    if padding == "ones":
        return F.pad(x, (1, 1, 1, 1), value=1.0)
    padded = F.pad(x, (1, 1, 1, 1))
    if padding == "zeros":
        return padded
    ring = F.pad(torch.zeros_like(x[:, :1]), (1, 1, 1, 1), value=1.0)
    return torch.cat((padded, ring), dim=1)


class ActNormConv(nn.Module):
    """A convolution without bias, then an actnorm: the hidden layers of a coupling net."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: str = "zeros",
        logs_factor: float = 1.0,
    ) -> None:
        """Draws the kernel from N(0, 0.05^2); a 3x3 one is padded as `surround` does.

        Ones are for the last convolution of a net: here they mean zeros.
        """
        super().__init__()
        has_edge = kernel_size == 3 and padding == "edge_bias"
        self.padding = "edge_bias" if has_edge else "zeros"
        self.conv = nn.Conv2d(in_channels + has_edge, out_channels, kernel_size, bias=False)
        self.actnorm = ActNorm(out_channels, factor=logs_factor)
        nn.init.normal_(self.conv.weight, std=0.05)

    def convolve(self, x: Tensor) -> Tensor:
        """Maps (B, in, h, w) to (B, out, h, w), without the actnorm."""
        return self._run(x, self.conv.weight, None)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, h, w) to (B, out, h, w)."""
        scale = self.actnorm.log_scale().exp()
        kernel = self.conv.weight * scale[:, None, None, None]
        return self._run(x, kernel, self.actnorm.bias.flatten() * scale)

    def _run(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding == "edge_bias":
            return F.conv2d(surround(x, self.padding), kernel, bias)
        return F.conv2d(x, kernel, bias, padding="same")


class ScaledConv(nn.Module):
    """A 3x3 convolution scaled by ``exp(3 * logs)``, zero at first; paper section 3.3."""

    def __init__(self, in_channels: int, out_channels: int, padding: str) -> None:
        """Makes the zero map; its input is padded as `surround` does."""
        super().__init__()
        self.padding = padding
        self.logs = nn.Parameter(torch.zeros(out_channels, 1, 1))
        self.conv = nn.Conv2d(in_channels + (padding == "edge_bias"), out_channels, 3)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, h, w) to (B, out, h, w)."""
        scale = torch.exp(3 * self.logs)
        kernel = self.conv.weight * scale[:, None]
        bias = cast(Tensor, self.conv.bias) * scale.flatten()
        if self.padding == "zeros":
            return F.conv2d(x, kernel, bias, padding=1)
        return F.conv2d(surround(x, self.padding), kernel, bias)


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


class Step(nn.Module):
    """One step of flow: actnorm, channel mixing, coupling; paper figure 2a and table 1."""

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        permutation: Mixing,
        affine: bool,
        actnorm_scale: float,
        actnorm_logs_factor: float,
        padding: str,
    ) -> None:
        """Makes a step whose coupling starts as the identity, or close to it if affine."""
        super().__init__()
        self.affine = affine
        self.actnorm = ActNorm(channels, actnorm_scale, actnorm_logs_factor)
        self.invconv = permutation
        # In place is safe: the backward pass of a convolution does not need its output.
        self.block = nn.Sequential(
            ActNormConv(channels // 2, hidden_channels, 3, padding, actnorm_logs_factor),
            nn.ReLU(inplace=True),
            ActNormConv(hidden_channels, hidden_channels, 1, logs_factor=actnorm_logs_factor),
            nn.ReLU(inplace=True),
            ScaledConv(hidden_channels, channels if affine else channels // 2, padding),
        )

    def _mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        matrix, log_det = self.invconv()
        log_scale = self.actnorm.log_scale()
        kernel = matrix * log_scale.exp()
        x = F.conv2d(x, kernel[:, :, None, None], kernel @ self.actnorm.bias.flatten())
        return x, (log_det + log_scale.sum()) * (x.shape[2] * x.shape[3])

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
        kernel = self.invconv.inverse() * torch.exp(-self.actnorm.log_scale())[:, None]
        y = torch.cat((kept, moved), dim=1)
        return F.conv2d(y, kernel[:, :, None, None], -self.actnorm.bias.flatten())

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Sets the step's actnorms in order, each from its own input; returns the output."""
        self.actnorm.initialise(x)
        h = self._mix(x)[0].chunk(2, dim=1)[0]
        for layer in self.block:
            if isinstance(layer, ActNormConv):
                layer.actnorm.initialise(layer.convolve(h))
            h = layer(h)
        return self(x)[0]


class Split(nn.Module):
    """The prior of the half of the channels that a level factors out, given the other half."""

    def __init__(self, channels: int, padding: str) -> None:
        """Makes a standard normal, for a level of `channels` channels."""
        super().__init__()
        self.conv = ScaledConv(channels // 2, channels, padding)

    def forward(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log standard deviation, (B, C/2, h, w) each, given the kept half."""
        h = self.conv(kept)
        return h[:, 0::2], h[:, 1::2]
