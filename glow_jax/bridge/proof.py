"""Proof of a conversion: the same weights and images through PyTorch and JAX, number by number."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import torch

from glow_jax.bridge import torch_glow
from glow_jax.bridge.mapping import build_reference
from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, GIGABYTE
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError
from glow_jax.layers.convolution import Formulation
from glow_jax.model import Glow, computing
from glow_jax.pixels import bits_per_dim, dequantize

# Some weights lose more digits in float32 than others, so the tolerance grows with the difference
# between the reference in float32 and in float64.
_FACTOR = 4
# It does not grow beyond what would be seen: weights that PyTorch itself computes as badly prove
# nothing. Figures in bits/dim are given to two decimals; a latent has a standard deviation of about
# 1; a step between two grey levels is 1/256.
_MOST = {"likelihood": 5e-3, "latent": 2e-2, "image": 4 / 256}
# The model runs on other machines than the one that converts it.
_FORMULATIONS: tuple[Formulation, ...] = ("products", "convolution")
# The activations that both programs hold at once, in units of one hidden layer of all images.
_LAYERS_HELD = 8


@dataclass(frozen=True)
class Figure:
    """One comparison.

    Attributes:
        name: the compared quantity.
        difference: the largest difference.
        tolerance: the largest difference that is accepted.
    """

    name: str
    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the difference is a finite number within the tolerance."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        sign = "<=" if self.holds else "EXCEEDS"
        return f"{self.name:<42} {self.difference:8.1e} {sign} {self.tolerance:.1e}"


@dataclass(frozen=True)
class _Numbers:
    """The results of one implementation, as float64 arrays.

    Attributes:
        latents: level by level, each (B, h, w, c).
        log_det: (B,), in nats.
        log_prob: (B,), in nats.
        logits: (B, classes), if the model classifies.
        error: the largest error of encode -> decode.
    """

    latents: list[np.ndarray]
    log_det: np.ndarray
    log_prob: np.ndarray
    logits: np.ndarray | None
    error: float


def prove(
    model: Glow,
    values: dict[str, np.ndarray],
    memory: int = DEFAULT_LIMIT,
    *,
    images: int = 4,
    seed: int = 0,
    device: str = "cpu",
) -> list[Figure]:
    """Compare a converted model with the PyTorch reference on the same weights.

    JAX computes by matrix products, as on a CPU and in networks on an NVIDIA GPU, and by
    convolutions, as elsewhere.

    Args:
        model: the converted model.
        values: the weights that it was converted from, in Glow-PyTorch's layout.
        memory: the number of bytes that the activations may take.
        images: the number of random images.
        seed: seed of the random images.
        device: PyTorch's name of where the reference computes.

    Returns:
        The figures, each the larger one of both ways; the conversion is proved if all of them hold.
        A tolerance is 4 times the difference between the reference in float32 and in float64, but
        at least 1e-5 for likelihoods and 1e-4 for the rest, and at most 5e-3 for likelihoods, 2e-2
        for latents and four grey levels for decoded images.

    Raises:
        GlowError: the model is too large for the memory, or PyTorch cannot invert it.
    """
    config = model.config
    height, width, channels = config.image_shape
    largest = max(config.hidden_channels, 4 * channels) * height * width // 4
    needed = 4 * images * largest * _LAYERS_HELD
    if needed > memory:
        raise GlowError(
            f"The proof on {images} images of {height} x {width} would take "
            f"{needed / GIGABYTE:.1f} GB of memory, more than the limit of "
            f"{memory / GIGABYTE:.2f} GB; raise it by --memory_limit, or leave the proof out by "
            "--no_check."
        )
    x, y = _draw_images(config, images, seed)
    x = x.astype(values["flow.layers.1.actnorm.bias"].dtype)
    ours = [_run_jax(computing(model, formulation=way), x, y) for way in _FORMULATIONS]
    reference = build_reference(config, values).to(device).eval()
    try:
        theirs = _run_torch(reference, x, y)
        exact = _run_torch(reference.double(), x.astype(np.float64), y)
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        raise GlowError("PyTorch cannot invert a 1x1 convolution of this model.") from error
    return _compare(config, ours, theirs, exact)


def _draw_images(
    config: ModelConfig, images: int, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Random pixels, dequantised, (B, H, W, C), and random labels, (B, classes), if conditional."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (images, *config.image_shape), np.uint8)
    x = dequantize(jnp.asarray(pixels), jax.random.key(seed), n_bits=config.n_bits)
    if not config.y_condition:
        return np.asarray(x), None
    labels = rng.integers(0, config.y_classes, images)
    return np.asarray(x), np.eye(config.y_classes, dtype=np.float32)[labels]


@jax.jit
def log_det(model: Glow, x: jax.Array) -> jax.Array:
    """The sum of the log-determinants of all steps, (B,)."""
    total = jnp.zeros(x.shape[0])
    for level, split in model.levels_and_splits():
        x, logdet = level.forward(x)
        total += logdet
        if split is not None:
            x, _, _ = split.factor(x)
    return total


def _run_jax(model: Glow, x: np.ndarray, y: np.ndarray | None) -> _Numbers:
    images = jnp.asarray(x)
    labels = None if y is None else jnp.asarray(y, images.dtype)
    code = model.encode(images, labels)
    return _Numbers(
        latents=[np.asarray(latent, np.float64) for latent in code.latents],
        log_det=np.asarray(log_det(model, images), np.float64),
        log_prob=np.asarray(code.log_prob, np.float64),
        logits=None
        if model.classifier is None
        else np.asarray(model.classify(code.latents), np.float64),
        error=_largest(np.asarray(model.decode(code.latents, labels)) - x),
    )


@torch.no_grad()
def _run_torch(model: torch_glow.Glow, x: np.ndarray, y: np.ndarray | None) -> _Numbers:
    """The results in PyTorch, computed where the model is."""
    device = next(model.parameters()).device
    images = torch.from_numpy(x.copy()).permute(0, 3, 1, 2).to(device)
    labels = None if y is None else torch.from_numpy(y).to(images)
    code = model.encode(images, labels)

    def nhwc(tensor: torch.Tensor) -> np.ndarray:
        return tensor.cpu().double().permute(0, 2, 3, 1).numpy()

    return _Numbers(
        latents=[nhwc(latent) for latent in code.latents],
        log_det=code.log_det.cpu().double().numpy(),
        log_prob=code.log_prob.cpu().double().numpy(),
        logits=None
        if model.project_class is None
        else model.classify(code.latents[-1]).cpu().double().numpy(),
        error=_largest(nhwc(model.decode(code.latents, labels)) - x),
    )


def _compare(
    config: ModelConfig, ours: list[_Numbers], theirs: _Numbers, exact: _Numbers
) -> list[Figure]:
    """JAX's numbers beside PyTorch's, and beside PyTorch's in float64 for the tolerance."""
    nats = config.dimensions * math.log(2)

    def figure(name: str, of: Callable[[_Numbers], list[np.ndarray]], least: float) -> Figure:
        def difference(some: _Numbers, other: _Numbers) -> float:
            return _most(_largest(a - b) for a, b in zip(of(some), of(other), strict=True))

        found = _most(difference(numbers, theirs) for numbers in ours)
        most = _MOST["likelihood" if least == 1e-5 else "latent"]
        return Figure(name, found, min(max(least, _FACTOR * difference(theirs, exact)), most))

    def bits(numbers: _Numbers) -> list[np.ndarray]:
        log_prob = numbers.log_prob
        return [np.asarray(bits_per_dim(log_prob, config.image_shape, n_bits=config.n_bits))]

    def logits(numbers: _Numbers) -> list[np.ndarray]:
        return [] if numbers.logits is None else [numbers.logits]

    figures = [
        figure("latents", lambda numbers: numbers.latents, 1e-4),
        figure("log-determinant / (D log 2)", lambda numbers: [numbers.log_det / nats], 1e-5),
        figure("bits/dim", bits, 1e-5),
    ]
    if theirs.logits is not None:
        figures.append(figure("class logits", logits, 1e-4))
    bound = min(max(1e-4, _FACTOR * theirs.error), _MOST["image"])
    error = _most(numbers.error for numbers in ours)
    return [*figures, Figure("encode -> decode in JAX", error, bound)]


def _most(differences: Iterable[float]) -> float:
    """The largest; NaN if one is, which `max` would lose, and which no bound holds."""
    return float(np.max([*differences]))


def _largest(difference: np.ndarray) -> float:
    return float(np.max(np.abs(difference)))
