"""The PyTorch Glow computed one layer after the other, as Glow-PyTorch does it.

The reference of `convert/` multiplies actnorms and scales into the kernels beside them, which saves
passes over the wide activations. What users of PyTorch have is this.
"""

from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor

from glow_jax.bridge.torch_glow import Glow
from glow_jax.bridge.torch_layers import ActNormConv, ScaledConv, Step, surround


def compute_layer_by_layer(model: Glow) -> Glow:
    """Make the model compute so, with the parameters that it has; returns it."""
    for module in model.modules():
        if isinstance(module, ActNormConv):
            module.forward = MethodType(_conv_actnorm, module)
        elif isinstance(module, ScaledConv):
            module.forward = MethodType(_conv_scale, module)
        elif isinstance(module, Step):
            module._mix = MethodType(_mix, module)
            module.inverse = MethodType(_inverse, module)
    return model


def _conv_actnorm(self: ActNormConv, x: Tensor) -> Tensor:
    h = self.convolve(x) + self.actnorm.bias
    return h * torch.exp(self.actnorm.factor * self.actnorm.logs)


def _conv_scale(self: ScaledConv, x: Tensor) -> Tensor:
    return self.conv(surround(x, self.padding)) * torch.exp(3 * self.logs)


def _mix(self: Step, x: Tensor) -> tuple[Tensor, Tensor]:
    matrix, log_det = self.invconv()
    logs = self.actnorm.factor * self.actnorm.logs
    x = (x + self.actnorm.bias) * torch.exp(logs)
    x = F.conv2d(x, matrix[:, :, None, None])
    return x, (log_det + logs.sum()) * (x.shape[2] * x.shape[3])


def _inverse(self: Step, y: Tensor) -> Tensor:
    kept, moved = y.chunk(2, dim=1)
    if self.affine:
        shift, log_scale = self._shift_and_log_scale(kept)
        moved = moved * torch.exp(-log_scale) - shift
    else:
        moved = moved - self.block(kept)
    y = F.conv2d(torch.cat((kept, moved), dim=1), self.invconv.inverse()[:, :, None, None])
    return y * torch.exp(-self.actnorm.factor * self.actnorm.logs) - self.actnorm.bias
