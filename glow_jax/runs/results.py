"""`results.json`: the results of `eval.py` for a run."""

from collections.abc import Mapping
from pathlib import Path

from glow_jax.files import write_json
from glow_jax.runs.inside import read_object

RESULTS = "results.json"


def write_results(folder: Path, results: Mapping[str, object]) -> Path:
    """Write plain values as a run's results; return the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULTS, results)
    return folder / RESULTS


def read_results(folder: Path) -> Mapping[str, object] | None:
    """What `write_results` wrote; None if nothing was.

    Raises:
        GlowError: the file is damaged, or no regular file.
    """
    return read_object(folder / RESULTS)
