"""`eval.py --ood`: files, printing and the progress bar."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from glow_jax.cli.errors import keeping
from glow_jax.config import ModelConfig
from glow_jax.data import Dataset
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dequantizing
from glow_jax.files import write_json, write_whole
from glow_jax.hub import load_run
from glow_jax.kernels.products import PRECISION
from glow_jax.model import computing
from glow_jax.ood.comparison import Job, Measured, compare, file_name, plan_jobs
from glow_jax.ood.images import Images, load_images, reference_images
from glow_jax.ood.measure import ReplicatedModel, meters_for, replicated_model
from glow_jax.ood.plots import save_histogram
from glow_jax.ood.report import markdown_report, text_report
from glow_jax.ood.results import Comparison
from glow_jax.ood.scores import Score, choose_scores
from glow_jax.runs import LoadedRun
from glow_jax.runs.measured import Columns


def compare_with(
    names: Sequence[str],
    *,
    run: LoadedRun,
    flow: ReplicatedModel,
    dataset: Dataset,
    scores: Sequence[str],
    background: Path | None,
    batch_size: int,
    dataroot: str | None,
    download: bool,
) -> None:
    """Compare a run's test split with other data sets; print, and write RUN/ood/NAME.*.

    Args:
        names: names of the other data sets, as for `load_images`.
        run: the run.
        flow: its model, ready to compute.
        dataset: the run's own data set.
        scores: names of scores; if empty, all that can be computed.
        background: run folder of the second model for the likelihood ratio.
        batch_size: images at a time.
        dataroot: folder of the data sets; None for the run's own, which is only read.
        download: whether to prepare a data set if it is missing.

    Raises:
        GlowError: the model is conditional, a name is unknown, or something does not fit.
    """
    folder, config = run.folder, flow.model.config
    if config.y_condition:
        raise GlowError(f"{run.name} is conditional on labels, which other data sets do not share.")
    chosen = choose_scores(scores, config, has_background=background is not None)
    other = None if background is None else _load_background(background, flow)
    outsides = [
        load_images(run.config, name, dataroot=dataroot, download=download) for name in names
    ]
    _check_names(outsides)
    inside = Images(dataset.name, "test", dataset.test)
    reference = reference_images(dataset, run.config.data.validation)
    meters = meters_for(chosen, flow, other)
    jobs = plan_jobs(chosen, meters, [inside, *outsides], reference)
    columns = _carry_out(jobs, folder, batch_size)
    known = [Measured(images, columns[images]) for images in reference if images in columns]
    about = {
        "run": run.name,
        "step": run.step,
        "averaged_parameters": run.average is not None,
        "dtype": flow.origin["dtype"],
        "precision": flow.origin["precision"],
        "dequantization": config.dequantization,
        "weights_sha256": flow.origin["weights_sha256"],
        "background": None if background is None else str(background),
    }
    measured = Measured(inside, columns[inside])
    for outside in (Measured(images, columns[images]) for images in outsides):
        pair = (known[0], known[1]) if known else None
        comparison = compare(chosen, measured, outside, pair)
        print(f"{text_report(comparison)}\n", flush=True)
        with keeping(folder):
            path = _write_pictures(folder / "ood", chosen, measured, outside, pair)
            _write_reports(path, comparison, about)
        print(f"written to {path}.json, .md, and {path}/\n")


def _write_reports(path: Path, comparison: Comparison, about: Mapping[str, object]) -> None:
    write_json(Path(f"{path}.json"), {**about, **comparison.to_json()})
    write_whole(Path(f"{path}.md"), markdown_report(comparison))


def _load_background(folder: Path, flow: ReplicatedModel) -> ReplicatedModel:
    run = load_run(folder)
    ours, theirs = flow.model.config, run.config.model
    if theirs.y_condition:
        raise GlowError(f"--background {folder} is conditional on labels: give one that is not.")
    if _pixels(theirs) != _pixels(ours):
        raise GlowError(
            f"--background {folder} takes images of {_pixels(theirs)}, and the run of "
            f"{_pixels(ours)}: both must take the same."
        )
    dtype = run.config.training.dtype
    # The ratio is of two bounds of one kind.
    kind = "uniform" if ours.dequantization == "uniform" else None
    model = computing(dequantizing(run, kind), dtype=dtype, precision=PRECISION)
    return replicated_model(flow.devices, model, step=run.step, dtype=dtype, precision=PRECISION)


def _pixels(config: ModelConfig) -> str:
    return f"{' x '.join(map(str, config.image_shape))} with {config.n_bits} bits"


def _check_names(outsides: Sequence[Images]) -> None:
    seen = set()
    for images in outsides:
        if file_name(images.name) in seen:
            raise GlowError(f"--ood names {images.name} twice: both results would have one name.")
        seen.add(file_name(images.name))


def _carry_out(jobs: Sequence[Job], folder: Path, batch_size: int) -> dict[Images, Columns]:
    columns: dict[Images, Columns] = {}
    total = sum(len(job.images.split) for job in jobs)
    with tqdm(total=total, unit="image", leave=False) as bar:
        for job in jobs:
            bar.set_description(f"{job.meter.name} of {job.images.name} {job.images.part}")
            found = job.carry_out(folder, batch_size=batch_size, progress=bar.update)
            columns.setdefault(job.images, {}).update(found)
    return columns


def _write_pictures(
    folder: Path,
    scores: Sequence[Score],
    inside: Measured,
    outside: Measured,
    reference: tuple[Measured, Measured] | None,
) -> Path:
    """Write a histogram of every score into a folder named as the other data set; return it."""
    path = folder / file_name(outside.images.name)
    names = (
        f"{inside.images.name} {inside.images.part}",
        f"{outside.images.name} {outside.images.part}",
    )
    mean = None if reference is None else reference[0].mean_bits_per_dim
    for score in scores:
        save_histogram(
            path / f"{score.name}.png",
            inside.score(score, mean),
            outside.score(score, mean),
            names=names,
            label=f"{score.title} ({score.unit})",
        )
    return path
