"""`python eval.py`: bits/dim of a run's test split, or comparisons with other data sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from glow_jax.cli.errors import keeping, one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.ood import compare_with
from glow_jax.cli.run_flags import RunFlags
from glow_jax.config import Dequantization
from glow_jax.devices import Devices, keep_compiled_programs
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import Evaluation, dataset_of, dequantizing, evaluate
from glow_jax.evaluation.labels import LabelFigures
from glow_jax.evaluation.likelihood import OnImages
from glow_jax.ood.measure import replicated_model
from glow_jax.runs import write_results


@dataclass(frozen=True)
class Arguments(RunFlags):
    """Evaluate a trained Glow: bits/dim of the test split, and reconstruction.

    With --ood: how well scores separate the test split from other data sets.
    """

    dequantization: Dequantization | None = None
    """noise of the images, and so the kind of the bound; by default as in training"""
    dequantizations: int = 1
    """draws of the dequantisation noise to average over"""
    importance: int = 0
    """draws for importance-weighted bounds, of 1, 10, 100, ... and so many draws; 0 = none"""
    eval_batch_size: int | None = None
    """images at a time; by default as in training"""
    dataset: str | None = None
    """a data set other than the run's own, with images of the same size"""
    dataroot: str | None = None
    """folder of the data sets; by default as in training"""
    dtype: Literal["float32", "bfloat16"] | None = None
    """dtype of the coupling networks; by default as in training"""
    precision: Literal["highest", "high", "default"] = "highest"
    """precision of the coupling networks' convolutions on a GPU or TPU, whatever training used"""
    download: bool = True
    """download and prepare the data set if it is missing"""
    ood: tuple[str, ...] = ()
    """data sets to compare with the run's own: names, folder:PATH, .npz files, or images that are
    made: constant, noise, enlarged_digits, and of its own mirrored, upside_down, rotated, noisy:SD,
    blurred:RADIUS"""
    ood_images: int | None = None
    """images of each set to compare, drawn at random (needs ood); by default all"""
    lid_images: int = 200
    """images of each set for the score lid, each of which takes many gradients"""
    scores: tuple[str, ...] = ()
    """scores that should separate them (needs ood); by default all that can be computed fast"""
    background: Path | None = None
    """the second model for the likelihood ratio, given as the run is (needs ood)"""
    ensemble: tuple[Path, ...] = ()
    """run folders of further models of the same images, for WAIC (needs ood)"""

    def __post_init__(self) -> None:
        """Check every value that can be checked without the run.

        Raises:
            GlowError: a value is out of range, or contradicts another one.
        """
        if self.dequantizations < 1:
            raise GlowError(f"dequantizations is {self.dequantizations}; it must be at least 1.")
        if self.importance < 0:
            raise GlowError(f"importance is {self.importance}; it must be 0 (none) or above.")
        if self.eval_batch_size is not None and self.eval_batch_size < 1:
            raise GlowError(f"eval_batch_size is {self.eval_batch_size}; it must be at least 1.")
        for name in ("dataset", "dataroot"):
            if getattr(self, name) == "":
                raise GlowError(f"--{name} is empty: give a value, or leave it out.")
        for name, least in (("dequantizations", 1), ("importance", 0)):
            value = getattr(self, name)
            if self.ood and value > least:
                raise GlowError(
                    f"{name} is {value}; with --ood, each image is measured with one draw of "
                    "noise: leave it out."
                )
        if self.ood and self.dataset:
            raise GlowError(
                f"--ood compares with the images that the run was trained on, not with those of "
                f"--dataset {self.dataset}: give it as --ood, too, or leave it out."
            )
        if self.ood_images is not None and self.ood_images < 1:
            raise GlowError(f"ood_images is {self.ood_images}; it must be at least 1.")
        if self.lid_images < 1:
            raise GlowError(f"lid_images is {self.lid_images}; it must be at least 1.")
        for name in ("ood_images", "scores", "background", "ensemble"):
            if not self.ood and getattr(self, name):
                raise GlowError(f"--{name} compares data sets: give --ood, too.")


@one_line_errors
def main() -> None:
    """Load the run, evaluate it, print the results and write `results.json`."""
    arguments = parse(Arguments)
    keep_compiled_programs()
    run = arguments.load()
    dataset = dataset_of(
        run, arguments.dataset, dataroot=arguments.dataroot, download=arguments.download
    )
    if not arguments.ood:
        found = evaluate(
            run,
            dataset,
            dequantization=arguments.dequantization,
            dequantizations=arguments.dequantizations,
            importance=arguments.importance,
            batch_size=arguments.eval_batch_size,
            dtype=arguments.dtype,
            precision=arguments.precision,
            bar=_bar,
        )
        print(_text(found), flush=True)
        with keeping(run.folder):
            path = write_results(run.folder, found.to_json())
        print(f"written to {path}")
        return
    dtype = arguments.dtype or run.config.training.dtype
    flow = replicated_model(
        Devices(),
        dequantizing(run, arguments.dequantization),
        step=run.step,
        dtype=dtype,
        precision=arguments.precision,
    )
    compare_with(
        arguments.ood,
        run=run,
        flow=flow,
        dataset=dataset,
        scores=arguments.scores,
        background=arguments.background,
        ensemble=arguments.ensemble,
        most_images=arguments.ood_images,
        lid_images=arguments.lid_images,
        batch_size=arguments.eval_batch_size or run.config.training.eval_batch_size,
        download=arguments.download,
        dataroot=arguments.dataroot,
    )


@contextmanager
def _bar(images: int) -> Iterator[OnImages]:
    with tqdm(total=images, unit="image", leave=False) as bar:
        yield bar.update


def _text(found: Evaluation) -> str:
    levels = enumerate(found.level_bits_per_dim, start=1)
    shares = "  ".join(f"level {i}: {share:.4f}" for i, share in levels)
    bits, errors = found.likelihood, found.reconstruction
    bounds = "".join(
        f"importance-weighted {bound.mean:.4f} +- {bound.standard_error:.4f} of {draws} draw"
        f"{'s' if draws > 1 else ''}\n"
        for draws, bound in found.importance.items()
    )
    images = len(bits.bits_per_dim)
    off = ""
    if errors.images_off:
        off = (
            f"\n{errors.images_off} of {images} images not given back: a value is off by more "
            "than half a grey level, because the flow is nearly singular at them"
        )
    return (
        f"{found.run.name}, {found.run.title}: {images} test images of "
        f"{found.dataset}\n"
        f"bits/dim            {bits.mean:.4f} +- {bits.standard_error:.4f} (standard error), "
        f"{found.dequantization} dequantisation\n"
        f"{bounds}"
        f"of which            {shares}\n"
        f"max abs error of encode -> decode: {errors.from_latents:.2e} from latents, "
        f"{errors.from_noise:.2e} from noise"
        f"{off}"
        f"{'' if found.labels is None else _labels_text(found.labels)}"
    )


def _labels_text(found: LabelFigures) -> str:
    lines = [
        f"accuracy            {one.value:.4f} +- {one.standard_error:.4f} by the {rule}"
        for rule, one in found.accuracy.items()
    ]
    if found.class_bits_per_dim is not None:
        lines.append(f"knowing the class saves {found.class_bits_per_dim:.4f} bits/dim")
    known = [(value, number) for number, value in enumerate(found.auroc) if value is not None]
    if known:
        least, label = min(known)
        mean = sum(value for value, _ in known) / len(known)
        lines.append(
            f"AUROC of the labels {mean:.4f}, the mean of {len(known)}; the lowest is {least:.4f}, "
            f"of label {label}"
        )
    return "".join(f"\n{line}" for line in lines)
