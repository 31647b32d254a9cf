"""Turn PyTorch Glow weights into a run folder, and prove that it computes the same numbers.

python convert/from_torch.py glow.pt --output runs/published
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("from_torch")


if __name__ == "__main__":
    main()
