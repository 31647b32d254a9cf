"""Train a Glow.

python train.py --preset digits --output_dir runs/digits
python train.py --output_dir runs/digits --resume
"""

from glow_jax.cli.train import main

if __name__ == "__main__":
    main()
