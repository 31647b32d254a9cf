"""Programs in the format of `jax.export`: StableHLO for several platforms in one file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from glow_jax.export.programs import Arrays, Format, Program
from glow_jax.model import Glow

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where one file runs, by JAX's names."""


def serialise(program: Program, model: Glow) -> bytes:
    """A program for every platform and any number of images, with the weights as constants."""
    from jax import export

    with _without_places():
        exported = export.export(jax.jit(program.of(model)), platforms=PLATFORMS)(*program.specs())
    return bytes(exported.serialize())


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Keep the paths of this machine's source files out of a program."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def run(path: Path, program: Program, inputs: Arrays) -> Arrays:
    """Read a file and run it on this machine's default device."""
    from jax import export

    exported = export.deserialize(bytearray(path.read_bytes()))
    outputs = exported.call(*(inputs[port.name] for port in program.inputs))
    return {port.name: np.asarray(outputs[port.name]) for port in program.outputs}


FORMAT = Format("jaxexport", ("jax",), "pip install jax", serialise, run)
