"""Draw samples from a trained Glow as a PNG grid.

python sample.py runs/digits --temperature 0.7 --num 64
python sample.py runs/digits --temperatures 0,0.5,0.7,1
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("sample")


if __name__ == "__main__":
    main()
