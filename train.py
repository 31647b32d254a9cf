"""Train a Glow.

python train.py --preset digits --output_dir runs/digits
python train.py --output_dir runs/digits --resume
"""

from pathlib import Path

import jax

from glow_jax.cli import one_line_errors, parse_training
from glow_jax.data import load_dataset
from glow_jax.parallel import make_virtual_devices
from glow_jax.training.loop import check_folder, train


@one_line_errors
def main() -> None:
    """Parse the flags, choose the devices, load the images, train."""
    config = parse_training()
    if not config.output.cuda:
        jax.config.update("jax_platforms", "cpu")
    if config.output.devices:
        make_virtual_devices(config.output.devices)
    check_folder(Path(config.output.output_dir), config)  # before anything is downloaded
    train(config, load_dataset(config.data))


if __name__ == "__main__":
    main()
