"""Evaluate a trained Glow on the test split of its data set.

python eval.py runs/digits
python eval.py runs/digits --step best --dequantizations 10
python eval.py runs/fashion --ood mnist
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from glow_jax.cli.flags import one_line_errors, parse
from glow_jax.config import Config
from glow_jax.data import Dataset, load_dataset
from glow_jax.devices.compilation import keep_compiled_programs
from glow_jax.devices.parallel import DataParallel
from glow_jax.errors import GlowError
from glow_jax.evaluation.likelihood import make_likelihood, make_reconstruction
from glow_jax.files import write_json
from glow_jax.model import computing, take_apart
from glow_jax.ood.command import compare_with
from glow_jax.ood.measure import make_flow
from glow_jax.runs.checkpoint import load_run


@dataclass(frozen=True)
class Arguments:
    """Evaluate a trained Glow: bits/dim of the test split, and reconstruction.

    With --ood: how well scores tell the test split from other data sets.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """run folder"""
    step: int | Literal["best"] | None = None
    """checkpoint: a step's number, or best on the validation split; the newest if left out"""
    dequantizations: int = 1
    """draws of the dequantisation noise to average over"""
    eval_batch_size: int | None = None
    """images at a time; as in training if left out"""
    dataset: str | None = None
    """another data set than the run's own, of images of the same size"""
    dataroot: str | None = None
    """folder where data sets live; as in training if left out"""
    dtype: Literal["float32", "bfloat16"] | None = None
    """type in which the coupling networks compute; as in training if left out"""
    download: bool = True
    """download and prepare the data set if it is missing"""
    ood: tuple[str, ...] = ()
    """data sets to tell from the run's own: names, folder:PATH, or .npz files"""
    scores: tuple[str, ...] = ()
    """scores to tell them apart by (needs ood); all that can be computed if left out"""
    background: Path | None = None
    """run folder of the likelihood ratio's second model (needs ood)"""

    def __post_init__(self) -> None:
        """Check every value that needs no run.

        Raises:
            GlowError: one is out of range, or does not go with the others.
        """
        if self.dequantizations < 1:
            raise GlowError(f"dequantizations is {self.dequantizations}; it must be at least 1.")
        if self.ood and self.dequantizations > 1:
            raise GlowError(
                f"dequantizations is {self.dequantizations}; with --ood, each image is measured "
                "with one draw of noise: leave it out."
            )
        if self.ood and self.dataset:
            raise GlowError(
                f"--ood compares with the images that the run was trained on, not with those of "
                f"--dataset {self.dataset}: give it as --ood, too, or leave it out."
            )
        if not self.ood and (self.scores or self.background):
            raise GlowError("--scores and --background say how to compare: give --ood, too.")


@one_line_errors
def main() -> None:
    """Load the run, evaluate it, print and write `results.json`."""
    arguments = parse(Arguments)
    keep_compiled_programs()
    run = load_run(arguments.run, arguments.step)
    config, dtype = run.config.model, arguments.dtype or run.config.training.dtype
    model = computing(run.best_model, dtype=dtype)
    dataset = _dataset(arguments, run.config)
    test = dataset.test
    batch_size = arguments.eval_batch_size or run.config.training.eval_batch_size
    if batch_size < 1:
        raise GlowError(f"eval_batch_size is {batch_size}; it must be at least 1.")

    parallel = DataParallel()
    if arguments.ood:
        compare_with(
            arguments.ood,
            folder=arguments.run,
            run=run,
            flow=make_flow(parallel, model, step=run.step, dtype=dtype),
            dataset=dataset,
            scores=arguments.scores,
            background=arguments.background,
            batch_size=batch_size,
            download=arguments.download,
            dataroot=arguments.dataroot or run.config.data.dataroot,
        )
        return
    parts = take_apart(model)
    weights = parallel.replicate((parts.params, parts.buffers))
    likelihood = make_likelihood(parallel, parts.graph, config, batch_size=batch_size)
    reconstruction = make_reconstruction(parallel, parts.graph, config, batch_size=batch_size)
    with tqdm(total=len(test) * (arguments.dequantizations + 1), unit="image", leave=False) as bar:
        found = likelihood(weights, test, arguments.dequantizations, bar.update)
        errors = reconstruction(weights, test, bar.update)

    levels = found.level_bits_per_dim.mean(axis=0)
    results = {
        "dataset": dataset.name,
        "split": "test",
        "images": len(test),
        "step": run.step,
        "dtype": dtype,
        "averaged_parameters": run.average is not None,
        "dequantizations": arguments.dequantizations,
        "bits_per_dim": found.mean,
        "standard_error": found.standard_error,
        "level_bits_per_dim": levels.tolist(),
        "reconstruction_max_abs_error": errors,
    }
    write_json(arguments.run / "results.json", results)
    shares = "  ".join(f"level {i}: {share:.4f}" for i, share in enumerate(levels, start=1))
    print(
        f"{arguments.run}, step {run.step}: {len(test)} test images of {results['dataset']}\n"
        f"bits/dim            {found.mean:.4f} +- {found.standard_error:.4f} (standard error)\n"
        f"of which            {shares}\n"
        f"max abs error of encode -> decode: {errors['from_latents']:.2e} from latents, "
        f"{errors['from_noise']:.2e} from noise\n"
        f"written to {arguments.run / 'results.json'}"
    )


def _dataset(arguments: Arguments, config: Config) -> Dataset:
    data = replace(
        config.data,
        dataset=arguments.dataset or config.data.dataset,
        dataroot=arguments.dataroot or config.data.dataroot,
        download=arguments.download,
    )
    height, width, _ = config.model.image_shape
    if arguments.dataset and height == width:
        data = replace(data, image_size=height)
    dataset = load_dataset(data)
    if dataset.image_shape != config.model.image_shape:
        raise GlowError(
            f"{arguments.run} takes images of {config.model.image_shape}; those of {dataset.name} "
            f"are {dataset.image_shape}: give another --dataset."
        )
    if config.model.y_condition and dataset.classes != config.model.y_classes:
        raise GlowError(
            f"{arguments.run} is conditional on {config.model.y_classes} classes; {dataset.name} "
            f"has {dataset.classes}."
        )
    return dataset


if __name__ == "__main__":
    main()
