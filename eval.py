"""Evaluate a trained Glow on the test split of its data set.

python eval.py runs/digits
python eval.py runs/digits --step best --dequantizations 10
python eval.py runs/fashion --ood mnist
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("evaluate")


if __name__ == "__main__":
    main()
