"""`python train.py`: find devices and other processes, load the images, train."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import Config
from glow_jax.data import Dataset, load_dataset
from glow_jax.devices import (
    is_main_process,
    join_processes,
    keep_compiled_programs,
    main_process_first,
    make_virtual_devices,
    use_cpu,
)
from glow_jax.runs import check_folder
from glow_jax.training.tracking import check_trackers
from glow_jax.training.trainer import train


@one_line_errors
def main() -> None:
    """Train with the flags of the command line."""
    config = parse_training()
    keep_compiled_programs()
    output = config.output
    if not output.cuda:
        use_cpu()
    if output.devices:
        make_virtual_devices(output.devices)
    join_processes(output.coordinator, output.num_processes, output.process_id)
    if is_main_process():  # before anything is downloaded
        check_trackers(output)
        check_folder(Path(output.output_dir), resume=output.resume, fresh=output.fresh)
    with main_process_first():
        dataset = _images(config, sys.argv[1:])
    train(config, dataset)


def _images(config: Config, arguments: Sequence[str]) -> Dataset:
    """The images of a new run, or of one that is resumed and perhaps comes from a stranger."""
    if not config.output.resume:
        return load_dataset(config.data)
    dataroot_given = any(argument.startswith("--dataroot") for argument in arguments)
    data, channels = config.data, config.model.image_shape[2]
    if channels in (1, 3):  # as it was decided when the run was started
        data = dataclasses.replace(data, channels=str(channels))
    return load_dataset(data, named_by_run=not dataroot_given)
