"""What a model is given: the dtypes and shapes of images, labels and latents."""

import jax.numpy as jnp

from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, InputTypeError
from glow_jax.typing import Array


def check_images(config: ModelConfig, x: Array) -> None:
    """Raise `GlowError` unless `x` is a batch of images, (B, H, W, C), of the model's size."""
    if x.dtype not in (jnp.float32, jnp.float64):
        raise InputTypeError(
            f"encode takes float32 or float64 images in about [-0.5, 0.5), not {x.dtype}; "
            "glow_jax.dequantize makes them from uint8 pixels."
        )
    if jnp.result_type(x) != x.dtype:
        raise InputTypeError(
            "The images are float64, which JAX would round to float32: switch on "
            "jax_enable_x64, or give float32 images."
        )
    if x.ndim != 4 or tuple(x.shape[1:]) != config.image_shape:
        raise GlowError(
            f"encode takes images of shape (B, {', '.join(map(str, config.image_shape))})"
            f", the size this model was built for, not {tuple(x.shape)}."
        )


def check_labels(config: ModelConfig, y: Array | None, batch: int) -> None:
    """Raise `GlowError` unless `y` is labels, (B, classes), or None for unconditional models."""
    if not config.y_condition:
        if y is not None:
            raise GlowError("Labels y were given to a model built without y_condition.")
    elif y is None:
        raise GlowError("This model is conditional on the label: give y, (B, classes).")
    elif tuple(y.shape) != (batch, config.y_classes):
        raise GlowError(
            f"Labels y have shape {tuple(y.shape)}; one-hot or multi-hot labels of shape "
            f"{(batch, config.y_classes)} are needed (jax.nn.one_hot makes them)."
        )


def check_latents(config: ModelConfig, latents: tuple[Array | None, ...]) -> int:
    """Check the shapes of the latents that are given; return their batch size.

    Raises:
        GlowError: one does not fit, or all are None.
    """
    shapes = config.latent_shapes
    if len(latents) != len(shapes):
        raise GlowError(f"This model has {len(shapes)} latents, not {len(latents)}.")
    given = {i: latent for i, latent in enumerate(latents) if latent is not None}
    if not given:
        raise GlowError("Every latent is None; use sample to draw images.")
    batch = next((latent.shape[0] for latent in given.values() if latent.ndim), 0)
    for i, latent in given.items():
        if not jnp.issubdtype(latent.dtype, jnp.floating):
            raise InputTypeError(f"Latent {i} is {latent.dtype}; it must be floating-point.")
        if tuple(latent.shape) != (batch, *shapes[i]):
            raise GlowError(
                f"Latent {i} has shape {tuple(latent.shape)}; it must be {(batch, *shapes[i])}."
            )
    return batch
