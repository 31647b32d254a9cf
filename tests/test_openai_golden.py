"""Checkpoints that openai/glow wrote, and what TensorFlow computed from them, against ours.

The golden files hold float32 numbers of TensorFlow; our largest difference from them is 1e-5.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from flax import nnx
from golden_cases import DATA
from parity import Figures, print_when_done

from glow_jax import Glow
from glow_jax.bridge import mapping
from glow_jax.bridge.conversion import Conversion
from glow_jax.bridge.from_openai import convert
from glow_jax.bridge.openai import flat_noise, levels_of
from glow_jax.layers.convolution import Formulation
from glow_jax.model import computing, initialise_actnorm

torch.set_num_threads(1)

OPENAI = DATA / "openai"
CASES = (
    "a_1x1_affine_8bit_L3",
    "b_1x1_additive_5bit",
    "c_shuffle_affine_8bit",
    "d_reverse_additive_no_learntop",
    "e_conditional_5bit",
    "frozen_1x1_affine_8bit",
)
AVERAGED = ("b_1x1_additive_5bit", "d_reverse_additive_no_learntop")
# The other kinds and formulations, of which these hold every part, are left to the slow tests.
EVERYDAY = (
    ("a_1x1_affine_8bit_L3", "products"),
    ("c_shuffle_affine_8bit", "products"),
    ("e_conditional_5bit", "convolution"),
)
NUMBERS = [
    pytest.param(*pair, marks=() if pair in EVERYDAY else pytest.mark.slow)
    for pair in itertools.product(CASES, ("products", "convolution"))
]

FIGURES = Figures("JAX and openai/glow's TensorFlow, float32")
print_figures = print_when_done(FIGURES)


class Case(NamedTuple):
    """A converted case, what it holds, and its labels in one-hot form."""

    conversion: Conversion
    arrays: dict[str, np.ndarray]

    def labels(self, name: str) -> Any:
        config = self.conversion.config.model
        if not config.y_condition:
            return None
        return jnp.asarray(np.eye(config.y_classes, dtype=np.float32)[self.arrays[name]])


def load(name: str, path: str = "") -> Case:
    with np.load(OPENAI / name / "golden.npz") as arrays:
        return Case(convert(OPENAI / name / path), dict(arrays))


def largest(ours: Any, theirs: np.ndarray) -> float:
    return float(np.max(np.abs(np.asarray(ours, np.float64) - theirs)))


@jax.jit
def encoded(model: Glow, x: jax.Array, y: Any) -> dict[str, Any]:
    code = model.encode(x, y)
    numbers = {
        "z_top": code.latents[-1],
        "feps": flat_noise(code.noise),
        "bits_x": model.bits_per_dim(x, y),
        **{f"eps_{level}": noise for level, noise in enumerate(code.noise)},
    }
    if model.classifier is not None:
        numbers["y_logits"] = model.classify(code.latents)
    return numbers


@jax.jit
def decoded(model: Glow, flat: jax.Array, y: Any) -> jax.Array:
    return model.decode_noise(levels_of(flat, model.config), y)


@pytest.mark.parametrize(("name", "formulation"), NUMBERS)
def test_every_number_of_a_case(name: str, formulation: Formulation) -> None:
    case = load(name)
    model, arrays = computing(case.conversion.model, formulation=formulation), case.arrays
    for quantity, ours in encoded(model, jnp.asarray(arrays["x"]), case.labels("y")).items():
        FIGURES.check(quantity.rstrip("_0123"), largest(ours, arrays[quantity]), 1e-4, name)
    if "y_logits" in arrays:
        logits = np.asarray(encoded(model, jnp.asarray(arrays["x"]), case.labels("y"))["y_logits"])
        chosen = jax.nn.log_softmax(logits)[np.arange(len(logits)), arrays["y"]]
        FIGURES.check("bits_y", largest(-chosen / np.log(2), arrays["bits_y"]), 1e-4, name)

    at_zero = np.zeros((len(arrays["temp0_sample_float"]), arrays["feps"].shape[1]), np.float32)
    for quantity, flat, y in (
        ("decoded", arrays["feps"], "y"),
        ("given_sample", arrays["given_feps"], "y"),
        ("temp0_sample", at_zero, "temp0_y"),
    ):
        ours = decoded(model, jnp.asarray(flat), case.labels(y))
        FIGURES.check(quantity, largest(ours, arrays[f"{quantity}_float"]), 1e-4, name)
        # Their pixels are multiples of 2^(8 - n_bits), and ours spread the bins over 0..255.
        shift = 8 - model.config.n_bits
        bins = np.asarray(model.to_pixels(ours)) >> shift
        differ = bins != arrays[f"{quantity}_uint8"] >> shift
        # Only a value on the edge of two bins may be rounded into the other.
        edges = np.asarray((ours + 0.5) * 2**model.config.n_bits)[differ]
        assert np.all(np.abs(edges - np.round(edges)) < 1e-3)
        assert differ.sum() <= 1


@pytest.mark.parametrize("name", AVERAGED)
def test_the_averages_are_the_average_of_the_run(name: str) -> None:
    case = load(name)
    average = case.conversion.average
    assert average is not None
    ours = encoded(average, jnp.asarray(case.arrays["x"]), None)
    FIGURES.check("ema: z_top", largest(ours["z_top"], case.arrays["ema_z_top"]), 1e-4, name)
    FIGURES.check("ema: bits_x", largest(ours["bits_x"], case.arrays["ema_bits_x"]), 1e-4, name)


@pytest.mark.parametrize("name", [name for name in CASES if name not in AVERAGED])
def test_without_averages_and_slots_there_is_neither(name: str) -> None:
    conversion = load(name).conversion
    assert (conversion.average, conversion.optimizer_state, conversion.step) == (None, None, 0)


def test_a_frozen_graph_holds_the_same_model() -> None:
    name = "frozen_1x1_affine_8bit"
    bundle, graph = load(name).conversion, load(name, "graph_constants.pb").conversion
    assert graph.config == bundle.config
    for ours, theirs in zip(
        jax.tree.leaves(graph.model), jax.tree.leaves(bundle.model), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_initialisation_from_the_same_images() -> None:
    folder = OPENAI / "d_reverse_additive_no_learntop" / "init"
    wanted = convert(folder, image_size=16, n_bits=8).model
    with np.load(folder / "init.npz") as arrays:
        x, z_top, bits_x = (jnp.asarray(arrays[name]) for name in ("x", "z_top", "bits_x"))
    flat = nnx.to_flat_state(nnx.state(wanted, nnx.Param))
    # What actnorms hold before is of no account.
    moved = [
        (path, leaf.replace(leaf[...] + 1) if "actnorm" in "".join(map(str, path)) else leaf)
        for path, leaf in flat
    ]
    before = nnx.clone(wanted)
    nnx.update(before, nnx.from_flat_state(moved))
    assert not np.allclose(before.bits_per_dim(x), bits_x, atol=1)

    ours = initialise_actnorm(before, x)
    for found, leaf in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        FIGURES.check("initial actnorms", largest(found, np.asarray(leaf)), 1e-4)
    numbers = encoded(ours, x, None)
    FIGURES.check("initialised: z_top", largest(numbers["z_top"], np.asarray(z_top)), 1e-4)
    FIGURES.check("initialised: bits_x", largest(numbers["bits_x"], np.asarray(bits_x)), 1e-4)


@pytest.mark.parametrize(
    "formulation", ["products", pytest.param("convolution", marks=pytest.mark.slow)]
)
def test_the_same_numbers_as_the_reference_in_float64(formulation: Formulation, x64: None) -> None:
    """The proof's reference pads and convolves the extra channel itself."""
    case = load("e_conditional_5bit")
    config = case.conversion.config.model
    values = {key: value.astype(np.float64) for key, value in case.conversion.values.items()}
    model = computing(mapping.to_glow(values, config), formulation=formulation)
    reference = mapping.build_reference(config, values)
    x, y = case.arrays["x"].astype(np.float64), np.eye(config.y_classes)[case.arrays["y"]]
    code = model.encode(jnp.asarray(x), jnp.asarray(y))
    with torch.no_grad():
        theirs = reference.encode(torch.from_numpy(x).movedim(-1, 1), torch.from_numpy(y))
    for ours, latent in zip(code.noise, theirs.noise, strict=True):
        difference = largest(ours, latent.movedim(1, -1).numpy())
        FIGURES.check("float64: noise, from our reference", difference, 1e-9)
    difference = largest(code.log_prob, theirs.log_prob.numpy()) / config.dimensions
    FIGURES.check("float64: log_prob / D, from our reference", difference, 1e-9)
    back = model.decode_noise(code.noise, jnp.asarray(y))
    FIGURES.check("float64: encode -> decode", largest(back, x), 1e-9)
