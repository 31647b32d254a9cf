"""Evaluate a trained Glow on the test split of its data set.

python eval.py runs/digits
python eval.py runs/digits --step best --dequantizations 10
python eval.py runs/fashion --ood mnist
"""

from glow_jax.cli.evaluate import main

if __name__ == "__main__":
    main()
