"""Turn a checkpoint of openai/glow into a run folder, and prove that it computes the same numbers.

python convert/from_openai.py logs/abl-1x1-aff --output runs/abl-1x1-aff
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("from_openai")


if __name__ == "__main__":
    main()
