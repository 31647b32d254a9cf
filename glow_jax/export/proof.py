"""Proof of an exported file: its numbers beside the model's own, on the same inputs."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from glow_jax.evaluation.samples import labels_in_turn, visible_pixels
from glow_jax.export.programs import Arrays, Port, Program
from glow_jax.model import Glow

TOLERANCE = 1e-4
"""The largest difference that is accepted, of a number above 1 as a share of it."""

BATCHES = (1, 3)
"""How many images a file is tried with at a time."""

# Images as the model draws them well. On images that it does not know, an affine flow gives noise
# so large that float32 itself does not have it to four digits.
_TEMPERATURE = 0.7


class Proof:
    """What a model computes itself, for files to be compared with."""

    def __init__(self, model: Glow, programs: Sequence[Program]):
        """Draw inputs for every batch size, and compute each program's outputs.

        Args:
            model: as it is loaded, not as it is exported.
            programs: what will be exported of it.
        """
        self._model = model
        self._inputs = [_draw(model, programs, images) for images in BATCHES]
        self._outputs = {
            program.name: [_outputs(program, model, inputs) for inputs in self._inputs]
            for program in programs
        }

    def differences(self, program: Program, run: Callable[[Arrays], Arrays]) -> dict[str, float]:
        """The largest difference of each output of a program from the model's own numbers.

        These are its numbers in float32, or in float64 where a file is nearer to those. Float32
        rounds the noise of the model in models/ by nearly the tolerance, and a file that rounds
        otherwise may be the more exact of the two.

        Pixels are compared with the rounded values of the same file: a value that float32 puts on
        the other side of a bin's edge is another pixel, and no error.

        Args:
            program: the program.
            run: runs a file of it on inputs by their names.
        """
        found = [run(inputs) for inputs in self._inputs]
        differences = self._from(program, found, self._outputs[program.name])
        if max(differences.values()) <= TOLERANCE:
            return differences
        exact = self._from(program, found, self._in_float64(program))
        return {name: min(differences[name], exact[name]) for name in differences}

    def _from(
        self, program: Program, found: Sequence[Arrays], own: Sequence[Arrays]
    ) -> dict[str, float]:
        def expected(name: str, own: Arrays, found: Arrays) -> np.ndarray:
            if name != "pixels":
                return own[name]
            return visible_pixels(self._model, jnp.asarray(found["values"]))

        return {
            port.name: max(
                _difference(port, numbers[port.name], expected(port.name, known, numbers))
                for numbers, known in zip(found, own, strict=True)
            )
            for port in program.outputs
        }

    def _in_float64(self, program: Program) -> list[Arrays]:
        with jax.enable_x64(True):
            return [
                _outputs(
                    program,
                    self._model,
                    {
                        name: given.astype(np.float64) if given.dtype == np.float32 else given
                        for name, given in inputs.items()
                    },
                )
                for inputs in self._inputs
            ]


def _draw(model: Glow, programs: Sequence[Program], images: int) -> Arrays:
    """An input for every name: noise, and the images that the model draws from it."""
    rng, config = np.random.default_rng(images), model.config
    inputs = {
        "noise": rng.standard_normal((images, config.dimensions), dtype=np.float32),
        "temperature": np.array(_TEMPERATURE, np.float32),
        "uniform": rng.random((images, *config.image_shape), dtype=np.float32),
    }
    labels = labels_in_turn(model, images)
    if labels is not None:
        inputs["labels"] = np.asarray(labels)
    sample = next(program for program in programs if program.name == "sample")
    return inputs | {"pixels": _outputs(sample, model, inputs)["pixels"]}


def _outputs(program: Program, model: Glow, inputs: Arrays) -> Arrays:
    outputs = program.of(model)(*(inputs[port.name] for port in program.inputs))
    return {name: np.asarray(output) for name, output in outputs.items()}


def _difference(port: Port, found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference; infinite where shape or type differ, or a number is not finite."""
    if found.shape != expected.shape or found.dtype != port.dtype:
        return float("inf")
    expected = expected.astype(np.float64)
    share = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    largest = float(np.max(share))
    return largest if np.isfinite(largest) else float("inf")
