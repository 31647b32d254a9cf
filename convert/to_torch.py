"""Write a run as files that Glow-PyTorch loads: weights, optimizer's state and settings.

python convert/to_torch.py runs/mine --output export/glow.pt
"""

from glow_jax.cli.start import start


def main() -> None:
    """Run the command."""
    start("to_torch")


if __name__ == "__main__":
    main()
