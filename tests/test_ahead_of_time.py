"""Programs compiled for TPUs and GPUs that are not there; nothing is run.

For TPUs it takes `pip install -e '.[aot]'`, for GPUs `pip install 'jax[cuda12]'` (4 GB); without
them these tests are skipped. test_lowering.py has what shows before compiling, for both.
"""

from collections import Counter
from functools import cache
from typing import Literal, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.compiled import communication, convolutions, estimated_cycles, operations
from benchmarks.programs import (
    Program,
    absent_machine,
    compile_for,
    initialisation,
    likelihood,
    missing,
    sampling,
    training_step,
)
from glow_jax import Config, ModelConfig
from glow_jax.config import TrainingConfig
from glow_jax.flow import GradientMemory
from glow_jax.kernels.products import Precision

# Compiled as users' programs are, with optimisation.
pytestmark = [pytest.mark.slow, pytest.mark.optimised]

TOPOLOGIES = {"tpu": "v5e:2x4", "cuda": "1x1x8"}
# Small layers compile in seconds; many of them show what a gradient keeps. 128 images fill a TPU's
# lanes.
BATCH, K, HIDDEN = 128, 512, 32
MODEL = ModelConfig(K=K, L=1, hidden_channels=HIDDEN, image_shape=(8, 8, 3), y_classes=0)
CHANNELS, POSITIONS = 12, 16


class Step(NamedTuple):
    """How a training step computes."""

    memory: GradientMemory
    dtype: Literal["float32", "bfloat16"]
    precision: Precision


STEPS = {
    "fast highest": Step("fast", "float32", "highest"),
    "fast high": Step("fast", "float32", "high"),
    "fast bfloat16": Step("fast", "bfloat16", "high"),
    "remat highest": Step("remat", "float32", "highest"),
    "remat high": Step("remat", "float32", "high"),
    "remat bfloat16": Step("remat", "bfloat16", "high"),
    "reversible highest": Step("reversible", "float32", "highest"),
}
OTHERS = {"likelihood": likelihood, "sampling": sampling, "initialisation": initialisation}
PROGRAMS = [*STEPS, *OTHERS]

# What programs may call that is not XLA's: layouts and memory on a TPU, convolutions on a GPU.
# Matrices are factored in the initialisation.
_FACTORING = {
    "tpu": {"AssumeGatherIndicesInBound", "LuDecompositionBlock", "QrDecompositionBlock"},
    "cuda": {
        "cu_lu_pivots_to_permutation",
        "cusolver_geqrf_ffi",
        "cusolver_getrf_ffi",
        "cusolver_orgqr_ffi",
    },
}
ALLOWED = {
    "tpu": {"AllocateBuffer", "CompactWyHelper", "ConcatBitcast", "GatherScatterIndicesBitpacked"},
    "cuda": {
        "__cudnn$convBackwardFilter",
        "__cudnn$convBackwardInput",
        "__cudnn$convBiasActivationForward",
        "__cudnn$convForward",
    },
}


def needs(platform: str) -> pytest.MarkDecorator:
    reason = missing(platform)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


ON = pytest.mark.parametrize("platform", [pytest.param(p, marks=needs(p)) for p in TOPOLOGIES])


class Compiled(NamedTuple):
    """A program's text, and the bytes that a device needs beside arguments and results."""

    text: str
    temporary: int


def config_of(step: Step) -> Config:
    training = TrainingConfig(memory=step.memory, dtype=step.dtype, precision=step.precision)
    return Config(model=MODEL, training=training)


def program_of(name: str) -> Program:
    if name in STEPS:
        return training_step(config_of(STEPS[name]), BATCH, over_devices=True)
    return OTHERS[name](config_of(STEPS["remat highest"]), BATCH)


@cache
def compiled(platform: str, name: str) -> Compiled:
    found = compile_for(absent_machine(platform, TOPOLOGIES[platform]), program_of(name))
    memory, text = found.memory_analysis(), found.as_text()
    assert memory is not None
    assert text is not None
    return Compiled(text, memory.temp_size_in_bytes)


def parameter_bytes() -> int:
    model = program_of("likelihood").arguments[0]
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


@ON
@pytest.mark.parametrize("name", STEPS)
def test_only_gradients_and_logged_scalars_pass_between_devices(platform: str, name: str) -> None:
    moved = communication(compiled(platform, name).text)
    assert moved == {"all-reduce": pytest.approx(parameter_bytes(), rel=0.01)}


@ON
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_float64_or_scattered_or_asks_the_host(platform: str, name: str) -> None:
    text = compiled(platform, name).text
    assert "f64[" not in text
    found = operations(text)
    callees = {operation for operation in found if not operation.replace("-", "").islower()}
    allowed = ALLOWED[platform] | (_FACTORING[platform] if name == "initialisation" else set())
    assert callees <= allowed
    waiting = {"conditional", "infeed", "outfeed", "recv", "scatter", "send", "sort"}
    assert not found & waiting


@ON
@pytest.mark.parametrize("name", STEPS)
def test_a_gradient_keeps_what_its_memory_says(platform: str, name: str) -> None:
    step = STEPS[name]
    inputs = 4 * K * BATCH * POSITIONS * CHANNELS
    hidden = 4 * K * BATCH * POSITIONS * HIDDEN
    kept = {"reversible": 0, "remat": inputs, "fast": hidden + 3 * inputs}[step.memory]
    if step.dtype == "bfloat16" and step.memory == "fast":
        kept -= hidden // 2
    # Twice the parameters: gradients, and their sums over devices. A TPU pads 12 channels to 16 and
    # stores some arrays in two layouts.
    slack = (
        1.1 if platform == "cuda" else {"reversible": 2.0, "remat": 2.4, "fast": 1.5}[step.memory]
    )
    assert compiled(platform, name).temporary <= slack * (2 * parameter_bytes() + kept)


@ON
@pytest.mark.parametrize("name", STEPS)
def test_networks_are_convolutions_on_a_tpu_alone(platform: str, name: str) -> None:
    step = STEPS[name]
    # Two of three layers are convolutions, and each has two gradients. The gradient computes the
    # first layer again; remat computes both, and reversible both, of which the last inverts.
    networks = {"fast": 2 + 1 + 4, "remat": 2 + 2 + 4, "reversible": 2 + 2 + 4}[step.memory]
    networks *= platform == "tpu"  # on a GPU they are products: see glow_jax/kernels/gpu.py
    dtype = {"float32": "f32", "bfloat16": "bf16"}[step.dtype]
    prior = {("f32", "highest"): 2}  # and the gradient of its kernel
    expected = Counter({(dtype, step.precision): networks}) + Counter(prior)
    assert Counter(convolutions(compiled(platform, name).text)) == expected


@ON
@pytest.mark.parametrize("name", OTHERS)
def test_other_programs_are_convolutions_at_the_highest_precision(platform: str, name: str) -> None:
    # That of the prior, or in the initialisation the first layer's; and on a TPU two of a network.
    count = 3 if platform == "tpu" else 1
    assert convolutions(compiled(platform, name).text) == [("f32", "highest")] * count


@needs("tpu")
@pytest.mark.parametrize("memory", ["fast", "remat"])
def test_fewer_passes_take_a_tpu_less_time(memory: str) -> None:
    cycles = [
        estimated_cycles(compiled("tpu", f"{memory} {numbers}").text)
        for numbers in ("highest", "high")
    ]
    assert cycles[0] > cycles[1] > 0
