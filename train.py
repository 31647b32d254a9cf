"""Train a Glow.

python train.py --preset digits --output_dir runs/digits
python train.py --output_dir runs/digits --resume
"""

from pathlib import Path

import jax

from glow_jax.cli.flags import one_line_errors, parse_training
from glow_jax.data import load_dataset
from glow_jax.devices.compilation import keep_compiled_programs
from glow_jax.devices.parallel import (
    is_main_process,
    join_processes,
    main_process_first,
    make_virtual_devices,
)
from glow_jax.training.loop import train
from glow_jax.training.start import check_folder


@one_line_errors
def main() -> None:
    """Parse the flags, find devices and other processes, load the images, train."""
    config = parse_training()
    keep_compiled_programs()
    output = config.output
    if not output.cuda:
        jax.config.update("jax_platforms", "cpu")
    if output.devices:
        make_virtual_devices(output.devices)
    join_processes(output.coordinator, output.num_processes, output.process_id)
    if is_main_process():
        check_folder(Path(output.output_dir), config)  # before anything is downloaded
    with main_process_first():
        dataset = load_dataset(config.data)
    train(config, dataset)


if __name__ == "__main__":
    main()
