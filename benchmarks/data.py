"""How fast images are read, beside how fast a small model trains on them.

    python benchmarks/data.py --dataset fashion_mnist --image_size 32 --n_workers 2
    python benchmarks/data.py --dataset jpegs --n_workers 2     (JPEGs that it writes itself)

Prints a table in Markdown: images a second of the pipeline alone, in memory and streamed, of the
training step alone, and of training fed by each pipeline. Seconds to the first batch say how long a
start takes. Writes it as JSON.
"""

import dataclasses
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from figures import FOLDER, markdown, write
from flax import nnx
from pictures import squares
from PIL import Image

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
from glow_jax.data import load_dataset
from glow_jax.data.batching import Batch, training_batches
from glow_jax.data.dataset import Dataset
from glow_jax.model import Glow
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import Metrics, make_train_step, new_state, prepare_images

_SECONDS = 8
_JPEGS, _SIDE = 2000, 160


@dataclass(frozen=True)
class Arguments:
    """What is measured."""

    data: DataConfig
    K: int = 4
    L: int = 2
    hidden_channels: int = 32
    batch_size: int = 64
    output: Path | None = None
    """JSON file; by default docs/benchmarks/data_NAME.json"""

    @property
    def file(self) -> Path:
        """The JSON file."""
        name = re.sub(r"\W+", "_", self.data.dataset)
        return self.output or FOLDER / f"data_{name}.json"


def write_jpegs(folder: Path, count: int, size: int) -> None:
    """Squares of scikit-learn's two photographs, as JPEGs in two classes."""
    for number, square in enumerate(squares(count, size)):
        place = folder / str(number % 2) / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(square).save(place, quality=90)


def pipeline(arguments: Arguments, dataset: Dataset) -> Iterator[Batch]:
    """Training batches of a data set."""
    return training_batches(
        dataset.train,
        batch_size=arguments.batch_size,
        classes=dataset.classes,
        seed=1,
        first_step=0,
    )


def make_step(arguments: Arguments, dataset: Dataset) -> Callable[[Batch], Metrics]:
    """A compiled training step that keeps its state to itself."""
    config = Config(
        model=ModelConfig(
            K=arguments.K,
            L=arguments.L,
            hidden_channels=arguments.hidden_channels,
            image_shape=dataset.image_shape,
        ),
        training=TrainingConfig(batch_size=arguments.batch_size, seed=1),
    )
    optimizer = make_optimizer(config.optimizer, 1000)
    prepare = partial(prepare_images, config=config, flips=dataset.flips, shifts=dataset.shifts)
    step = jax.jit(make_train_step(optimizer, config, prepare=prepare))
    state = new_state(Glow(config.model, rngs=nnx.Rngs(0)), optimizer, config)

    def run(batch: Batch) -> Metrics:
        nonlocal state
        state, metrics = step(state, batch.images, batch.labels, batch.indices)
        return metrics

    return run


def rate(batches: Iterator[Batch], use: Callable[[Batch], object]) -> tuple[float, float]:
    """Images a second after the first batch, and the seconds that the first took to come."""
    started = time.perf_counter()
    first = next(batches)
    waited = time.perf_counter() - started
    jax.block_until_ready(use(first))
    images = 0
    started = time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        batch = next(batches)
        jax.block_until_ready(use(batch))
        images += len(batch.images)
    return images / (time.perf_counter() - started), waited


def same_forever(batch: Batch) -> Iterator[Batch]:
    """The same batch without end."""
    while True:
        yield batch


def table(figures: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    columns = ("pipeline", "images/s", "share of a step", "first batch after, s")
    rows = []
    for row in figures["rows"]:
        read, share = row["reading"], figures["step_alone"] / row["reading"]
        cells = (row["pipeline"], f"{read:,.0f}", f"{share:.1%}", f"{row['first_batch']:.1f}")
        rows.append((*cells, f"{row['training']:,.0f}"))
    return markdown([*columns, "training, images/s"], rows)


@one_line_errors
def main() -> None:
    """Measure each pipeline, the step, and both together."""
    arguments = parse(Arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data
        if data.dataset == "jpegs":
            write_jpegs(Path(folder) / "jpegs", _JPEGS, _SIDE)
            data = dataclasses.replace(
                data,
                dataset=f"folder:{folder}/jpegs",
                dataroot=folder,
                image_size=data.image_size or 32,
            )
        streamed = dataclasses.replace(data, memory_limit=0)
        sources = {
            "in memory": data,
            "Grain, threads": dataclasses.replace(streamed, n_workers=0),
            f"Grain, {data.n_workers} processes": streamed,
        }
        datasets = {name: load_dataset(source) for name, source in sources.items()}
        dataset = datasets["in memory"]
        step = make_step(arguments, dataset)
        alone, _ = rate(same_forever(next(pipeline(arguments, dataset))), step)
        rows = []
        for name, dataset in datasets.items():
            read, waited = rate(pipeline(arguments, dataset), lambda _: None)
            trained, _ = rate(pipeline(arguments, dataset), step)
            row = {"pipeline": name, "reading": read, "first_batch": waited, "training": trained}
            rows.append(row)
        config = arguments.K, arguments.L, arguments.hidden_channels, arguments.batch_size
        about = dict(zip(("K", "L", "hidden_channels", "batch_size"), config, strict=True))
        figures = {**about, "seconds": _SECONDS, "step_alone": alone, "rows": rows}
        write(arguments.file, **figures)
        print(f"training step alone: {alone:,.0f} images/s\n\n{table(figures)}")


if __name__ == "__main__":
    main()
