"""How a step of the PyTorch Glow mixes channels: permutations and invertible 1x1 convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def random_orthogonal(size: int) -> Tensor:
    """Draws an orthogonal matrix (size, size): the Q of a Gaussian matrix."""
    return torch.linalg.qr(torch.randn(size, size)).Q
