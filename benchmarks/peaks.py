"""Published peaks of accelerators, by the names that JAX gives them."""

import re
from typing import NamedTuple

from glow_jax.kernels.products import Precision


class Peak(NamedTuple):
    """Operations a second in units of 10^12, dense.

    Attributes:
        float32: in float32.
        tf32: of the tensor cores, in TF32.
    """

    float32: float
    tf32: float

    def at(self, precision: Precision) -> float:
        """Of the coupling networks' convolutions at a precision, in operations a second."""
        return 1e12 * (self.float32 if precision == "highest" else self.tf32)


# Those of the H100 and H200 are from NVIDIA's data sheets, which state TF32 with sparsity: half of
# that. The others were read where they are quoted: glennklockwood.com/garden/processors/A100 (19.5;
# 156 dense), fpsbench.com and store.sourcecode.com (L4: 30.3; 120 with sparsity), mullet.se (L40S:
# 91.6; 183 dense, 366 with sparsity).
_PEAKS = {
    r"A100": Peak(19.5, 156),
    r"H100 80GB HBM3": Peak(67, 494.5),
    r"H100 PCIe": Peak(51, 378),
    r"H200": Peak(67, 494.5),
    r"L4": Peak(30.3, 60),
    r"L40S": Peak(91.6, 183),
}


def published_peak(card: str) -> Peak | None:
    """The peak of a card, for example "NVIDIA H100 80GB HBM3"; None if it is not in the table.

    A part of a card, which has MIG in its name, is not.
    """
    for name, peak in _PEAKS.items():
        if re.search(rf"\b{name}\b(?!.* (NVL|MIG)\b)", card):
            return peak
    return None
