"""Programs as ONNX models, made by jax2onnx and run by onnxruntime."""

import logging
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.extend.core import jaxpr_as_fun

from glow_jax.export.programs import Arrays, Format, Program
from glow_jax.flow import ConditionalStep, Level, Step
from glow_jax.model import Glow, computing

# They warn of plugins that no program here needs, and of types that onnxruntime finds itself.
# What matters is raised, or shows in the proof.
for _name in ("jax2onnx", "onnx_ir"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def serialise(program: Program, model: Glow) -> bytes:
    """A model for any number of images, with the weights as initialisers."""
    import jax2onnx  # pyright: ignore[reportMissingImports] - it is in an extra

    function, specs = program.of(_unrolled(model)), program.specs()

    def in_order(*inputs: jax.Array) -> list[jax.Array]:
        outputs = function(*inputs)
        return [outputs[port.name] for port in program.outputs]

    # Traced first: jax2onnx traces with functions of its own in the place of some of NumPy's names,
    # and not all of these take an open number of images.
    traced = jaxpr_as_fun(jax.make_jaxpr(in_order)(*specs))
    proto = jax2onnx.to_onnx(
        traced,
        specs,
        model_name=program.name,
        input_names=[port.name for port in program.inputs],
        output_names=[port.name for port in program.outputs],
    )
    return proto.SerializeToString()


def run(path: Path, program: Program, inputs: Arrays) -> Arrays:
    """Read a file and run it by onnxruntime on the CPU."""
    import onnxruntime  # pyright: ignore[reportMissingImports] - it is in an extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [port.name for port in program.outputs]
    outputs = session.run(names, {port.name: inputs[port.name] for port in program.inputs})
    return {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}


class _Unrolled(Level):
    """A level that runs its steps one after the other, without a loop."""

    def __init__(self, level: Level):
        """Take the steps of a level."""
        self.squeeze, self.K, self.steps = level.squeeze, level.K, level.steps
        self.memory = level.memory

    def forward(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(B, H, W, C) -> (B, H/2, W/2, 4C), (B,)."""
        x, total = self.squeeze.forward(x)
        for k in range(self.K):
            x, logdet = self._step(k).forward(x)
            total += logdet
        return x, total

    def inverse(self, y: jax.Array) -> jax.Array:
        """(B, H/2, W/2, 4C) -> (B, H, W, C)."""
        for k in reversed(range(self.K)):
            y = self._step(k).inverse(y)
        return self.squeeze.inverse(y)

    def _step(self, k: int) -> Step | ConditionalStep:
        return jax.tree.map(lambda a: jax.lax.index_in_dim(a, k, keepdims=False), self.steps)


def _unrolled(model: Glow) -> Glow:
    """The same model by convolutions and without loops, of which jax2onnx has none in reverse."""
    other = computing(model, formulation="convolution")
    levels: list[Level] = [_Unrolled(level) for level in other.levels]
    other.levels = nnx.List(levels)
    if other.dequantizer is not None:
        other.dequantizer.level = _Unrolled(other.dequantizer.level)
    return other


FORMAT = Format(
    "onnx", ("jax2onnx", "onnxruntime"), "pip install 'glow-jax[export]'", serialise, run
)
