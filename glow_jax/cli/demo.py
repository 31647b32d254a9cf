"""`python demo.py`: a local page on which a run draws, looks at pictures and edits them."""

import importlib.util
import sys
from dataclasses import dataclass

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.run_flags import RunFlags
from glow_jax.data import Dataset
from glow_jax.demo.desk import Desk
from glow_jax.demo.studio import open_studio
from glow_jax.devices import keep_compiled_programs
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.runs import LoadedRun


@dataclass(frozen=True)
class Arguments(RunFlags):
    """Open a local page on which a run draws, looks at pictures and edits them."""

    host: str = "127.0.0.1"
    """address to listen at; 0.0.0.0 lets others on the network open the page"""
    port: int | None = None
    """port; by default 7860, or the next that is free"""
    dataset: str | None = None
    """a data set other than the run's own, with images of the same size, for test images"""
    dataroot: str | None = None
    """folder of the data sets; by default as in training"""
    download: bool = False
    """download and prepare the data set if it is missing; by default the page does without"""

    def __post_init__(self) -> None:
        """Check every value that can be checked without the run.

        Raises:
            GlowError: the port is out of range, or the host is empty.
        """
        if self.port is not None and not 1 <= self.port <= 65535:
            raise GlowError(f"port is {self.port}; it must be from 1 to 65535.")
        if not self.host:
            raise GlowError("host is empty: give 127.0.0.1, or leave it out.")


@one_line_errors
def main() -> None:
    """Load the run, compile its programs, open the page until Ctrl-C."""
    arguments = parse(Arguments)
    if importlib.util.find_spec("gradio") is None:
        raise GlowError("The demo needs gradio: pip install 'glow-jax[demo]'.")
    keep_compiled_programs()
    run = arguments.load()
    dataset = _images(run, arguments)
    desk = Desk(open_studio(run, dataset, own_dataset=arguments.dataset is None))
    print(f"preparing {run.folder}, {run.title}", flush=True)
    desk.warm()
    from glow_jax.demo import page  # gradio takes seconds, and is not always installed

    opened = page.build(desk)
    address = page.launch(opened, host=arguments.host, port=arguments.port)
    print(f"open {address} in a browser; Ctrl-C ends", flush=True)
    page.wait(opened)


def _images(run: LoadedRun, arguments: Arguments) -> Dataset | None:
    """The images of the run; without them the page shows less."""
    try:
        return dataset_of(
            run, arguments.dataset, dataroot=arguments.dataroot, download=arguments.download
        )
    except GlowError as error:
        if arguments.dataset is not None or arguments.dataroot is not None:
            raise
        print(f"note: the page has no test images: {error}", file=sys.stderr)
        return None
