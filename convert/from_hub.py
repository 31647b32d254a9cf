"""Turn a model folder, or a model of the Hugging Face Hub, into a run folder.

python convert/from_hub.py models/fashion_mnist --output runs/mine
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("from_hub")


if __name__ == "__main__":
    main()
