"""The models that the benchmarks of speed and of accelerators compute."""

from typing import Literal

from glow_jax.config import ModelConfig

ModelName = Literal["published", "small", "tiny"]

MODELS: dict[ModelName, ModelConfig] = {
    "published": ModelConfig(image_shape=(32, 32, 3), y_classes=0),  # K = 32, L = 3, 512 hidden
    "small": ModelConfig(K=8, L=2, hidden_channels=64, image_shape=(28, 28, 1), y_classes=0),
    "tiny": ModelConfig(K=1, L=1, hidden_channels=8, image_shape=(8, 8, 3), y_classes=0),
}
"""The paper's for CIFAR-10; one for Fashion-MNIST at its own size; one that tries a command."""


def forward_flop(config: ModelConfig) -> float:
    """Floating-point operations of the products in an image's forward pass."""
    height, width, channels = config.image_shape
    hidden, total = config.hidden_channels, 0.0
    for _ in range(config.L):
        height, width, channels = height // 2, width // 2, channels * 4
        outputs = channels if config.flow_coupling == "affine" else channels // 2
        network = 9 * (channels // 2) * hidden + hidden**2 + 9 * hidden * outputs
        total += 2 * height * width * config.K * (network + channels**2)
        channels //= 2
    return total
