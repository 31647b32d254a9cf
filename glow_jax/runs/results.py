"""`results.json`: the results of `eval.py` for a run."""

from collections.abc import Mapping
from pathlib import Path

from glow_jax.files import write_json

RESULTS = "results.json"


def write_results(folder: Path, results: Mapping[str, object]) -> Path:
    """Write plain values as a run's results; return the file's path."""
    write_json(folder / RESULTS, results)
    return folder / RESULTS
