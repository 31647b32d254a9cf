"""Open a local page on which a trained Glow draws, looks at pictures and edits them.

python demo.py runs/digits
python demo.py runs/digits --host 0.0.0.0 --port 8000
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("demo")


if __name__ == "__main__":
    main()
