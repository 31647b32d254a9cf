"""`glow-jax directions`: directions in latent space, kept in a run."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from glow_jax.cli.errors import keeping, one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.run_flags import RunFlags
from glow_jax.demo.directions import CLASSES, between, groups_of, of_rows
from glow_jax.demo.studio import Studio, open_studio
from glow_jax.devices import keep_compiled_programs
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.runs import Direction, write_direction


@dataclass(frozen=True)
class Arguments(RunFlags):
    """Compute directions in the latent space of a run, and keep them in the run.

    A direction is the mean latent of some images minus that of others. Without --of and --file, the
    run gets one for each class or attribute of its data set: those images against all others. One
    that all training images have, or none, is left out.
    """

    of: str = ""
    """where the direction leads: a class or attribute, by name or number, or folder:PATH"""
    against: str = ""
    """where it comes from, as --of; by default all other images"""
    name: str = ""
    """what to call it; by default made of --of and --against"""
    file: Path | None = None
    """a .npy file of directions in rows, such as openai's z_manipulate.npy, instead of --of"""
    images: int = 1000
    """training images that each mean is taken over, at most"""
    dataset: str | None = None
    """a data set other than the run's own, with images of the same size"""
    dataroot: str | None = None
    """folder of the data sets; by default as in training"""
    download: bool = True
    """download and prepare the data set if it is missing"""

    def __post_init__(self) -> None:
        """Check every value that can be checked without the run.

        Raises:
            GlowError: a value is out of range, or contradicts another one.
        """
        if self.images < 1:
            raise GlowError(f"images is {self.images}; it must be at least 1.")
        if self.file is not None and self.of:
            raise GlowError("--file and --of both say where directions come from: give one.")
        if not self.of and (self.against or (self.name and self.file is None)):
            raise GlowError("--against and --name belong to one direction: give --of, too.")


@one_line_errors
def main() -> None:
    """Load the run, compute directions, keep them, print their names."""
    arguments = parse(Arguments)
    keep_compiled_programs()
    run = arguments.load()
    if arguments.file is not None:
        from glow_jax.bridge.openai import read_rows  # all but files does without PyTorch

        studio = open_studio(run, None)
        rows = read_rows(arguments.file, studio.model.config)
        name = arguments.name or arguments.file.stem
        found = of_rows(studio, rows, name, source=arguments.file.name)
    else:
        dataset = dataset_of(
            run, arguments.dataset, dataroot=arguments.dataroot, download=arguments.download
        )
        studio = open_studio(run, dataset, own_dataset=arguments.dataset is None)
        found = _computed(studio, arguments)
    with keeping(run.folder):
        lengths = []
        for direction in found:
            write_direction(run.folder, direction, weights=studio.weights)
            lengths.append(np.sqrt(sum(float(np.sum(entry**2)) for entry in direction.noise)))
            print(f"{direction.name}: length {lengths[-1]:.1f}", flush=True)
    draw = np.sqrt(studio.model.config.dimensions)
    kept = f"{len(lengths)} direction{'s' if len(lengths) > 1 else ''} kept in {run.folder}"
    print(f"{kept}; a draw has a length of about {draw:.1f}")


def _computed(studio: Studio, arguments: Arguments) -> Iterator[Direction]:
    pairs = [(arguments.of, arguments.against)]
    if not arguments.of:
        if not studio.class_names:
            raise GlowError(
                "The images of this run have no classes: give --of folder:PATH and --against "
                "folder:PATH."
            )
        pairs = [(f"{CLASSES}{number}", "") for number in range(len(studio.class_names))]
    for of, against in pairs:
        try:
            groups = groups_of(studio, of, against, most=arguments.images)
        except GlowError as error:
            if arguments.of:
                raise
            print(f"note: left out: {error}", file=sys.stderr)
            continue
        with tqdm(
            total=sum(len(group.indices) for group in groups), unit="image", leave=False
        ) as bar:
            yield between(studio, *groups, name=arguments.name, progress=bar.update)
