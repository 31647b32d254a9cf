"""Train a Glow.

python train.py --preset digits --output_dir runs/digits
python train.py --output_dir runs/digits --resume
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("train")


if __name__ == "__main__":
    main()
