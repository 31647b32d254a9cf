"""Run notebooks top to bottom in fresh kernels, and keep what they show in their files.

python notebooks/execute.py notebooks/*.ipynb
GLOW_DATAROOT=/data GLOW_RUN=/runs/mine python notebooks/execute.py notebooks/sampling.ipynb
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nbclient
import nbformat
import tyro

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.files import write_whole

_SECONDS = 600


@dataclass(frozen=True)
class Arguments:
    """Run notebooks and keep what they show."""

    notebooks: Annotated[list[Path], tyro.conf.Positional]
    """files to run, each overwritten by what came of it"""


def execute(path: Path, **environment: str) -> nbformat.NotebookNode:
    """Run every cell of a notebook, in its own folder as Jupyter does.

    Args:
        path: the file, which stays as it is.
        environment: variables of the kernel, beside those of this process.

    Returns:
        The notebook with its outputs, without progress bars and times.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.resolve().parent)}}
    client = nbclient.NotebookClient(
        notebook,
        timeout=_SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources=where,
    )
    client.execute(env={**os.environ, "TQDM_DISABLE": "1", **environment})
    return notebook


@one_line_errors
def main() -> None:
    """Run each notebook and overwrite it."""
    for path in parse(Arguments).notebooks:
        start = time.monotonic()
        write_whole(path, nbformat.writes(execute(path)) + "\n")
        print(f"{path}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
