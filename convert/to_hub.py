"""Write a run as a model folder with a model card, and upload it if asked to.

python convert/to_hub.py runs/mine --output published/mine
python convert/to_hub.py runs/mine --push user/mine
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("to_hub")


if __name__ == "__main__":
    main()
