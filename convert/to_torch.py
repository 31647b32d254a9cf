"""Write a run as files that Glow-PyTorch loads: weights, optimizer's state and settings.

python convert/to_torch.py runs/mine --output export/glow.pt
"""

from glow_jax.cli.to_torch import main

if __name__ == "__main__":
    main()
