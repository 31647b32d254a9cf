"""The programs that are exported: pixels to likelihoods and noise, and noise to pixels."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.config import ModelConfig
from glow_jax.evaluation.samples import without_nan_to_pixels
from glow_jax.latents import flat_noise, levels_of
from glow_jax.model import Glow
from glow_jax.pixels import bits_per_dim, in_bins

BATCH = "batch"
"""The name of the axis of images, whose length a program leaves open."""


class Port(NamedTuple):
    """An input or an output of a program.

    Attributes:
        name: its name in every format.
        shape: its sizes; `BATCH` stands for any number of images.
        dtype: NumPy's name of its type.
        meaning: what it is, for whoever reads `export.json`.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


Arrays = Mapping[str, np.ndarray]
"""The inputs or outputs of a program by their names."""


class Program(NamedTuple):
    """A function of arrays, and what they are.

    Attributes:
        name: the stem of the names of its files.
        function: takes a model and the inputs in their order; returns the outputs by their names.
        inputs: its inputs, in order.
        outputs: its outputs, in order.
    """

    name: str
    function: Callable[..., dict[str, jax.Array]]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def of(self, model: Glow) -> Callable[..., dict[str, jax.Array]]:
        """The function of the inputs alone, with the model's weights inside."""
        return lambda *inputs: self.function(model, *inputs)

    def specs(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes and types of the inputs, to trace the function for any number of images."""
        from jax import export

        (batch,) = export.symbolic_shape(BATCH)
        shapes = [[batch if size == BATCH else size for size in port.shape] for port in self.inputs]
        dtypes = [port.dtype for port in self.inputs]
        return list(map(jax.ShapeDtypeStruct, shapes, dtypes))


class Format(NamedTuple):
    """A format of files, and the libraries that write and read it.

    Attributes:
        suffix: the end of the files' names.
        libraries: the packages that write it, first, and read it, last.
        install: what installs them.
        serialise: the content of a file of a program of a model.
        run: reads a file of a program, and runs it on inputs by their names.
    """

    suffix: str
    libraries: tuple[str, ...]
    install: str
    serialise: Callable[[Program, Glow], bytes]
    run: Callable[[Path, Program, Arrays], Arrays]


def programs_of(config: ModelConfig) -> tuple[Program, Program]:
    """The programs of an architecture: encode and sample."""
    image, values = (BATCH, *config.image_shape), (BATCH, config.dimensions)
    labels = ()
    if config.y_condition:
        kind = "one-hot or multi-hot" if config.multi_class else "one-hot"
        labels = (Port("labels", (BATCH, config.y_classes), "float32", f"classes, {kind}"),)
    noise = Port(
        "noise",
        values,
        "float32",
        "every latent in unit-normal coordinates, finest level first, each (h, w, c) in C order",
    )
    encode = Program(
        "encode",
        _encode,
        (
            Port("pixels", image, "uint8", "images, 0 to 255"),
            Port(
                "uniform",
                image,
                "float32",
                "where each value lies in its pixel's bin, from 0 to 1: uniform draws for an "
                "unbiased bound, or 0.5 everywhere",
            ),
            *labels,
        ),
        (
            noise,
            Port("log_prob", (BATCH,), "float32", "log-density of the dequantised image, in nats"),
            Port("bits_per_dim", (BATCH,), "float32", "upper bound on -log2 P(pixels) / D"),
        ),
    )
    sample = Program(
        "sample",
        _sample,
        (
            noise,
            Port("temperature", (), "float32", "multiplies the noise; 1 inverts encode"),
            *labels,
        ),
        (
            Port("pixels", image, "uint8", "images, 0 to 255"),
            Port("values", image, "float32", "the same before rounding, in about [-0.5, 0.5)"),
        ),
    )
    return encode, sample


def _encode(
    model: Glow, pixels: jax.Array, uniform: jax.Array, y: jax.Array | None = None
) -> dict[str, jax.Array]:
    n_bits = model.config.n_bits
    bins = jnp.floor(pixels.astype(jnp.float32) * 2.0 ** (n_bits - 8))
    x = in_bins(bins * 2.0**-n_bits - 0.5, uniform, n_bits=n_bits)
    x, logdet = model.redequantize(x)
    code = model.encode(x, y)
    log_prob = code.log_prob + logdet
    bits = bits_per_dim(log_prob, model.config.image_shape, n_bits=n_bits)
    return {
        "noise": flat_noise(code.noise),
        "log_prob": log_prob,
        "bits_per_dim": jnp.asarray(bits),
    }


def _sample(
    model: Glow, noise: jax.Array, temperature: jax.Array, y: jax.Array | None = None
) -> dict[str, jax.Array]:
    values = model.decode_noise(levels_of(temperature * noise, model.config), y)
    return {"pixels": without_nan_to_pixels(model, values), "values": values}
