"""The architecture."""

from dataclasses import dataclass, field
from typing import Literal

from glow_jax.config.checks import NO_FLAG, check_choices, require
from glow_jax.errors import GlowError

Dequantization = Literal["uniform", "variational"]
"""The noise that makes pixels continuous."""

_MOST = {"K": 4096, "L": 24, "hidden_channels": 2**16}


@dataclass(frozen=True)
class ModelConfig:
    """The architecture: everything needed to build a Glow."""

    K: int = 32
    """steps of flow in each level"""
    L: int = 3
    """levels"""
    hidden_channels: int = 512
    """channels of the coupling networks' two hidden layers"""
    actnorm_scale: float = 1.0
    """standard deviation of the steps' actnorms after initialisation"""
    flow_permutation: Literal["invconv", "shuffle", "reverse"] = "invconv"
    """how channels are mixed between couplings"""
    flow_coupling: Literal["additive", "affine"] = "affine"
    """whether couplings shift, or shift and scale"""
    LU_decomposed: bool = True
    """store the 1x1 convolutions' matrices as LU products"""
    learn_top: bool = True
    """learn the prior of the top latent"""
    padding: Literal["zeros", "ones", "edge_bias"] = "zeros"
    """around the input of 3x3 convolutions: zeros (Glow-PyTorch); ones, for the last convolutions
    (rosinality); or edge_bias, zeros and a learned kernel on the border (openai/glow)"""
    y_condition: bool = False
    """condition the top prior on the label, and classify from the top latent"""
    multi_class: bool = False
    """labels are multi-hot: an image may have several classes (needs y_condition)"""
    n_bits: int = 8
    """bits kept of each 8-bit pixel"""

    dequantization: Dequantization = "uniform"
    """noise of the images: uniform, or by a flow given the image, which is trained with the model
    (Ho et al. 2019)"""

    # These have no flag: the data set or a converted checkpoint decides them.
    image_shape: tuple[int, int, int] = field(default=(0, 0, 0), metadata=NO_FLAG)
    """(H, W, C); zeros until the data set decides"""
    y_classes: int = field(default=10, metadata=NO_FLAG)
    """the number of classes; used only if y_condition is on"""
    classifier: bool = field(default=True, metadata=NO_FLAG)
    """a conditional model classifies; openai/glow's with weight_y 0 do not"""
    actnorm_logs_factor: float = field(default=1.0, metadata=NO_FLAG)
    """what actnorms multiply their logarithms by; 3 in openai/glow"""
    plain_levels: tuple[int, ...] = field(default=(), metadata=NO_FLAG)
    """levels, from 0, whose 1x1 matrices are plain in spite of LU_decomposed"""

    def __post_init__(self) -> None:
        """Check every value, and that images can be squeezed L times."""
        check_choices(self)
        # Checked before anything is computed from them: a file may say anything.
        for name, most in _MOST.items():
            value = getattr(self, name)
            require(value >= 1, name, value, "at least 1")
            require(value <= most, name, value, f"at most {most}")
        require(self.actnorm_scale > 0, "actnorm_scale", self.actnorm_scale, "above 0")
        factor = self.actnorm_logs_factor
        require(0 < factor <= 100, "actnorm_logs_factor", factor, "above 0 and at most 100")
        require(1 <= self.n_bits <= 8, "n_bits", self.n_bits, "from 1 to 8")
        require(
            self.y_condition or not self.multi_class,
            "multi_class",
            self.multi_class,
            "off if y_condition is off",
        )
        least = 1 if self.y_condition else 0
        require(self.y_classes >= least, "y_classes", self.y_classes, f"at least {least}")
        require(self.y_classes <= 10**6, "y_classes", self.y_classes, "at most 1000000")
        require(
            set(self.plain_levels) <= set(range(self.L)),
            "plain_levels",
            self.plain_levels,
            f"of levels from 0 to {self.L - 1}",
        )
        require(
            not any(self.image_shape) or min(self.image_shape) >= 1,
            "image_shape",
            self.image_shape,
            "positive in every entry, or all zeros if not yet known",
        )
        require(
            self.dimensions <= 2**28,
            "image_shape",
            self.image_shape,
            "of at most 268435456 values",
        )
        self._check_squeezes()

    def _check_squeezes(self) -> None:
        height, width, _ = self.image_shape
        if height % 2**self.L or width % 2**self.L:
            fits = 0
            while height % 2 ** (fits + 1) == 0 and width % 2 ** (fits + 1) == 0:
                fits += 1
            advice = f"the largest L that fits is {fits}" if fits else "no L fits an odd size"
            raise GlowError(
                f"Images of {height} x {width} cannot be squeezed L = {self.L} times: both sides "
                f"must be divisible by {2**self.L}; {advice}."
            )

    @property
    def dimensions(self) -> int:
        """D, the number of values in an image."""
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(h, w, c) of each latent, finest first, the top latent last."""
        height, width, channels = self.image_shape
        shapes = []
        for level in range(self.L):
            height, width, channels = height // 2, width // 2, channels * 4
            channels = channels if level == self.L - 1 else channels // 2
            shapes.append((height, width, channels))
        return tuple(shapes)
