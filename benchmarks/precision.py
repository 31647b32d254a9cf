"""What the roundings of GPUs and TPUs change in a trained model, emulated on a CPU.

    python benchmarks/precision.py

Every product of the coupling networks is computed from rounded float32 numbers, and summed in
float32, as `--precision high` and `default` have it on those machines. Their order of sums is not
emulated, and how they round is a guess. Prints a table in Markdown; writes it as JSON.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from figures import FOLDER, markdown, write
from flax import nnx

import glow_jax
from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.flow import GradientMemory
from glow_jax.kernels import products
from glow_jax.model import Glow, computing

_REPOSITORY = Path(__file__).resolve().parents[1]
_IN_A_GRADIENT = 16  # images


@dataclass(frozen=True)
class Arguments:
    """Likelihoods, reconstructions and gradients with emulated roundings, beside exact ones."""

    run: Annotated[Path, tyro.conf.Positional] = _REPOSITORY / "models" / "fashion_mnist"
    """run folder"""
    images: Path = _REPOSITORY / "tests" / "data" / "garments_and_digits.npz"
    """.npz file whose array `garments` holds uint8 images"""
    num: int = 128
    """number of images"""
    output: Path = FOLDER / "precision.json"


class Found(NamedTuple):
    """What a model gives.

    Attributes:
        bits: bits/dim of each image, (B,).
        latents: as in `Code`.
        back: the largest error of encode -> decode.
        gradient: of the mean bits/dim of some images, flat.
        reversible: the same gradient, computed with reversible memory.
    """

    bits: np.ndarray
    latents: tuple[jax.Array, ...]
    back: float
    gradient: np.ndarray
    reversible: np.ndarray


def kept_bits(x: jax.Array, bits: int, *, nearest: bool = True) -> jax.Array:
    """`x` with so many explicit bits of its mantissa: to nearest, ties to even, or cut off."""
    drop = 23 - bits
    word = jax.lax.bitcast_convert_type(x, jnp.uint32)
    if nearest:
        word += jnp.uint32((1 << (drop - 1)) - 1) + ((word >> drop) & 1)
    word &= jnp.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    return jax.lax.bitcast_convert_type(word, jnp.float32)


def _exact(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision="highest")


def _tf32(x: jax.Array, y: jax.Array) -> jax.Array:
    return _exact(kept_bits(x, 10), kept_bits(y, 10))


def _tf32_cut_off(x: jax.Array, y: jax.Array) -> jax.Array:
    return _exact(kept_bits(x, 10, nearest=False), kept_bits(y, 10, nearest=False))


def _one_pass(x: jax.Array, y: jax.Array) -> jax.Array:
    return _exact(kept_bits(x, 7), kept_bits(y, 7))


def _three_passes(x: jax.Array, y: jax.Array) -> jax.Array:
    x_high, y_high = kept_bits(x, 7), kept_bits(y, 7)
    rest = _one_pass(x_high, y - y_high) + _one_pass(x - x_high, y_high)
    return _exact(x_high, y_high) + rest


PRODUCTS = {
    "float32": _exact,
    "TF32": _tf32,
    "TF32, cut off instead of rounded": _tf32_cut_off,
    "three bfloat16 passes": _three_passes,
    "one bfloat16 pass": _one_pass,
}


class _Rounding:
    """`jax.numpy`, with another product where less than the highest precision is asked for."""

    def __init__(self, product: Callable[[jax.Array, jax.Array], jax.Array]):
        self._product = product

    def __getattr__(self, name: str) -> object:
        return getattr(jnp, name)

    def matmul(
        self,
        x: jax.Array,
        y: jax.Array,
        *,
        precision: products.Precision,
        preferred_element_type: object = np.float32,
    ) -> jax.Array:
        assert preferred_element_type == np.float32, "networks compute in float32 here"
        return _exact(x, y) if precision == "highest" else self._product(x, y)


def measure(
    model: Glow, x: jax.Array, product: Callable[[jax.Array, jax.Array], jax.Array]
) -> Found:
    """What a model gives whose networks compute with another product."""
    jax.clear_caches()  # of programs that were traced with the product of before
    model = computing(model, precision="high", formulation="products")
    with mock.patch.object(products, "jnp", _Rounding(product)):
        code = model.encode(x)
        back = float(jnp.abs(model.decode(code.latents) - x).max())
        bits = np.asarray(model.bits_per_dim(x), np.float64)
        gradients = (gradient(model, x[:_IN_A_GRADIENT], how) for how in ("remat", "reversible"))
        return Found(bits, code.latents, back, *gradients)


def gradient(model: Glow, x: jax.Array, memory: GradientMemory) -> np.ndarray:
    """The gradient of mean bits/dim, flat; reversible also where `computing` refuses it."""
    model = nnx.clone(model)
    for level in model.levels:
        level.memory = memory
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: nnx.State) -> jax.Array:
        return nnx.merge(graph, params, rest).bits_per_dim(x).mean()

    leaves = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])


@one_line_errors
def main() -> None:
    """Measure each way to multiply, print, write."""
    arguments = parse(Arguments)
    model = glow_jax.load(arguments.run)
    pixels = np.load(arguments.images)["garments"][: arguments.num, ..., None]
    x = model.dequantize(pixels, jax.random.split(jax.random.key(0), len(pixels)))
    exact: Found | None = None
    rows = []
    for name, product in PRODUCTS.items():
        found = measure(model, x, product)
        exact = exact or found
        change = found.bits - exact.bits
        apart = float(jnp.abs(model.decode(found.latents) - x).max())
        row = {
            "products": name,
            "change": float(change.mean()),
            "rms": float(np.sqrt(np.mean(change**2))),
            "back": found.back,
            "decoded_exactly": apart,
            "gradient": relative(found.gradient, exact.gradient),
            "reversible": relative(found.reversible, found.gradient),
        }
        rows.append(row)
        print(f"{name}: done", flush=True)
    assert exact is not None
    figures = {
        "images": len(x),
        "in_a_gradient": _IN_A_GRADIENT,
        "bits_per_dim": float(exact.bits.mean()),
        "rows": rows,
    }
    write(arguments.output, **figures)
    print(f"\n{table(figures)}")


def table(figures: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    columns = (
        *("products", "change of mean bits/dim", "rms of an image"),
        *("encode -> decode, largest error", "decoded at `highest`"),
        *("change of the gradient", "reversible minus `remat`"),
    )
    rows = []
    for row in figures["rows"]:
        name, change, *others = row.values()
        signed = f"{change:+.1e}" if change else "0"
        rows.append((name, signed, *(f"{value:.1e}" if value else "0" for value in others)))
    return markdown(columns, rows)


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """The norm of the difference, relative to that of the second."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


if __name__ == "__main__":
    main()
