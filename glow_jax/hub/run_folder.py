"""A model folder as a run folder, from which training can go on."""

import dataclasses
from pathlib import Path

from glow_jax.files import whole_folder
from glow_jax.hub.model_folder import PublishedRun
from glow_jax.runs import append_metrics, save_weights, write_data, write_license, write_results


def save_run(run: PublishedRun, folder: Path) -> None:
    """Write a run folder, which appears whole or not at all.

    Averaged parameters are kept as both: a model folder has no others.

    Raises:
        GlowError: it is not empty, or there is no room for it.
        OSError: it cannot be made at this place.
    """
    output = dataclasses.replace(run.config.output, output_dir=str(folder))
    config = dataclasses.replace(run.config, output=output)
    with whole_folder(folder) as aside:
        save_weights(aside, config, run.model, average=run.average, step=run.step)
        if run.images is not None:
            write_data(aside, run.images)
        if run.results is not None:
            write_results(aside, run.results)
        if run.license is not None:
            write_license(aside, run.license)
        for row in run.rows:
            append_metrics(aside, row)
