"""The names of the commands, for what the program tells its user to do."""

import sys
from pathlib import Path

SCRIPTS = {
    "train": "train.py",
    "eval": "eval.py",
    "sample": "sample.py",
    "demo": "demo.py",
    "convert from-torch": "convert/from_torch.py",
    "convert from-openai": "convert/from_openai.py",
    "convert to-torch": "convert/to_torch.py",
    "convert to-hub": "convert/to_hub.py",
    "convert from-hub": "convert/from_hub.py",
}
"""The script of a checkout that does the same as a command of `glow-jax`."""

PROGRAM = "glow-jax"


def command(name: str) -> str:
    """How the user calls a command: `python train.py` in a checkout, else `glow-jax train`.

    Args:
        name: a key of `SCRIPTS`.
    """
    is_checkout = (Path(__file__).parents[1] / SCRIPTS[name]).is_file()
    called = Path(sys.argv[0]).name if sys.argv else ""
    if is_checkout and called.partition(" ")[0] != PROGRAM:
        return f"python {SCRIPTS[name]}"
    return f"{PROGRAM} {name}"
