"""`eval.py --ood`: files, printing and the progress bar."""

import concurrent.futures
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from glow_jax.cli.errors import keeping
from glow_jax.config import ModelConfig
from glow_jax.data import Dataset
from glow_jax.data.notes import note
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dequantizing
from glow_jax.files import write_json, write_whole
from glow_jax.hub import load_run
from glow_jax.ood.comparison import Job, Judge, Judged, Measured, file_name, plan_jobs
from glow_jax.ood.images import Images, load_images, reference_images
from glow_jax.ood.measure import ReplicatedModel, replicated_model
from glow_jax.ood.meters import meters_for
from glow_jax.ood.plots import save_histogram
from glow_jax.ood.report import as_text, markdown_report, text_report
from glow_jax.ood.results import Comparison
from glow_jax.ood.scores import Score, choose_scores
from glow_jax.ood.synthetic import is_synthetic, make_images
from glow_jax.ood.table import pair_rows
from glow_jax.runs import LoadedRun
from glow_jax.runs.measured import Columns


def compare_with(
    names: Sequence[str],
    *,
    run: LoadedRun,
    flow: ReplicatedModel,
    dataset: Dataset,
    scores: Sequence[str],
    background: Path | None = None,
    ensemble: Sequence[Path] = (),
    most_images: int | None = None,
    lid_images: int = 200,
    batch_size: int,
    dataroot: str | None,
    download: bool,
) -> list[Comparison]:
    """Compare a run's test split with other data sets; print, and write RUN/ood/NAME.*.

    Args:
        names: names of the other data sets, as for `load_images`, or of `synthetic.KINDS`. The
            run's own test images, by any name, are not compared with themselves.
        run: the run.
        flow: its model, ready to compute.
        dataset: the run's own data set.
        scores: names of scores; if empty, all that can be computed and are not slow.
        background: run folder of the second model for the likelihood ratio.
        ensemble: run folders of further models of the run's data set, for WAIC.
        most_images: how many images of each set to take at most; None for all.
        lid_images: of how many of these to measure the intrinsic dimension.
        batch_size: images at a time.
        dataroot: folder of the data sets; None for the run's own, which is only read.
        download: whether to prepare a data set if it is missing.

    Raises:
        GlowError: the model is conditional, a name is unknown, or something does not fit.
    """
    folder, config = run.folder, flow.model.config
    if config.y_condition:
        raise GlowError(f"{run.name} is conditional on labels, which other data sets do not share.")
    chosen = choose_scores(
        scores, config, has_background=background is not None, has_ensemble=bool(ensemble)
    )
    second = None if background is None else _load_beside(background, "--background", flow)
    others = [_load_beside(path, "--ensemble", flow) for path in ensemble]

    sets = _load_sets(
        names, run, dataset, most_images=most_images, dataroot=dataroot, download=download
    )
    meters = meters_for(
        chosen, flow, sets.reference[0], background=second, ensemble=others, lid_images=lid_images
    )
    jobs = plan_jobs(chosen, meters, [sets.inside, *sets.outsides], sets.reference)
    columns = _carry_out(jobs, folder, batch_size)
    known = [Measured(images, columns[images]) for images in sets.reference if images in columns]
    judge = Judge(chosen, (known[0], known[-1]) if known else None)
    about = {
        **_about(run, flow),
        "background": None if background is None else str(background),
        "ensemble": list(map(str, ensemble)),
    }
    own, comparisons = judge.judge(Measured(sets.inside, columns[sets.inside])), []
    for images in sets.outsides:
        outside = judge.judge(Measured(images, columns[images]))
        comparisons.append(judge.compare(own, outside))
        print(f"{text_report(comparisons[-1])}\n", flush=True)
        with keeping(folder):
            path = _write_pictures(folder / "ood", chosen, own, outside)
            _write_reports(path, comparisons[-1], about)
        print(f"written to {path}.json, .md, and {path}/\n")
    if len(comparisons) > 1:
        print(as_text(pair_rows(comparisons)))
    return comparisons


@dataclass(frozen=True)
class _Sets:
    """The images of a comparison.

    Attributes:
        inside: the run's test images.
        outsides: the other data sets.
        reference: as `reference_images` gives them.
    """

    inside: Images
    outsides: list[Images]
    reference: tuple[Images, Images]


def _load_sets(
    names: Sequence[str],
    run: LoadedRun,
    dataset: Dataset,
    *,
    most_images: int | None,
    dataroot: str | None,
    download: bool,
) -> _Sets:
    def some(images: Images) -> Images:
        return images if most_images is None else images.sample(most_images)

    outsides = [
        make_images(name, dataset.test)
        if is_synthetic(name)
        else load_images(run.config, name, dataroot=dataroot, download=download)
        for name in names
    ]
    _check_names(outsides)
    inside = Images(dataset.name, "test", dataset.test)
    others = [images for images in outsides if images.fingerprint != inside.fingerprint]
    for images in outsides:
        if images not in others:
            note(f"{images.name} are the run's own test images, and not compared with themselves")
    training, known = reference_images(dataset, run.config.data.validation)
    reference = some(training)
    return _Sets(
        some(inside),
        list(map(some, others)),
        (reference, reference if known is training else some(known)),
    )


def _about(run: LoadedRun, flow: ReplicatedModel) -> dict[str, object]:
    return {
        "run": run.name,
        "step": run.step,
        "averaged_parameters": run.average is not None,
        "dtype": flow.dtype,
        "precision": flow.precision,
        "dequantization": flow.model.config.dequantization,
        "weights_sha256": flow.origin["weights_sha256"],
    }


def _write_reports(path: Path, comparison: Comparison, about: Mapping[str, object]) -> None:
    write_json(Path(f"{path}.json"), {**about, **comparison.to_json()})
    write_whole(Path(f"{path}.md"), markdown_report(comparison))


def _load_beside(folder: Path, flag: str, flow: ReplicatedModel) -> ReplicatedModel:
    """Load another run, whose likelihoods are set beside those of the first."""
    run = load_run(folder)
    ours, theirs = flow.model.config, run.config.model
    if theirs.y_condition:
        raise GlowError(f"{flag} {folder} is conditional on labels: give one that is not.")
    if _pixels(theirs) != _pixels(ours):
        raise GlowError(
            f"{flag} {folder} takes images of {_pixels(theirs)}, and the run of "
            f"{_pixels(ours)}: both must take the same."
        )
    # The ratio is of two bounds of one kind.
    kind = "uniform" if ours.dequantization == "uniform" else None
    return replicated_model(
        flow.devices,
        dequantizing(run, kind),
        step=run.step,
        dtype=flow.dtype,
        precision=flow.precision,
    )


def _pixels(config: ModelConfig) -> str:
    return f"{' x '.join(map(str, config.image_shape))} with {config.n_bits} bits"


def _check_names(outsides: Sequence[Images]) -> None:
    seen = set()
    for images in outsides:
        if file_name(images.name) in seen:
            raise GlowError(f"--ood names {images.name} twice: both results would have one name.")
        seen.add(file_name(images.name))


def _carry_out(jobs: Sequence[Job], folder: Path, batch_size: int) -> dict[Images, Columns]:
    """Carry out all jobs; those that need no device go on in a thread beside the others."""
    columns: dict[Images, Columns] = {}
    total = sum(len(job.measured.split) for job in jobs)
    stopped = threading.Event()
    with (
        tqdm(total=total, unit="image", leave=False) as bar,
        concurrent.futures.ThreadPoolExecutor(1) as thread,
    ):

        def progress(count: int) -> None:
            bar.update(count)
            if stopped.is_set():  # what is measured so far is then kept
                raise concurrent.futures.CancelledError

        def carry_out(job: Job) -> Columns:
            bar.set_description(f"{job.meter.name} of {job.images.title}")
            return job.carry_out(folder, batch_size=batch_size, progress=progress)

        aside = [job for job in jobs if job.meter.on_processor]
        begun = [thread.submit(carry_out, job) for job in aside]
        try:
            for job in jobs:
                if not job.meter.on_processor:
                    columns.setdefault(job.images, {}).update(carry_out(job))
            for job, future in zip(aside, begun, strict=True):
                columns.setdefault(job.images, {}).update(future.result())
        except BaseException:
            stopped.set()
            thread.shutdown(cancel_futures=True)
            raise
    return columns


def _write_pictures(folder: Path, scores: Sequence[Score], inside: Judged, outside: Judged) -> Path:
    """Write a histogram of every score into a folder named as the other data set; return it."""
    sets = inside.measured.images, outside.measured.images
    path = folder / file_name(sets[1].name)
    for score in scores:
        save_histogram(
            path / f"{score.name}.png",
            inside.values[score.name],
            outside.values[score.name],
            names=(f"{sets[0].name} {sets[0].part}", f"{sets[1].name} {sets[1].part}"),
            label=f"{score.title} ({score.unit})",
        )
    return path
