"""Training, likelihood and sampling against the project's PyTorch reference, in turn.

    python benchmarks/speed.py                       (the published size, batch 16; needs PyTorch)
    python benchmarks/speed.py --batch_sizes 1 4 16 64 --rounds 3

All compute the same Glow in float32 with the same number of threads, in turn: JAX in one process,
and in another the PyTorch reference of `convert/`, and the same layer by layer, as Glow-PyTorch
computes. One of them runs at a time, the other process waits. JAX's figures include what PyTorch's
leave out: dequantising the batch, the gradient's norm and the check that it is finite, drawing a
sample's noise. What is compared is the median, and a quotient is the median of the rounds'
quotients. The machine's peak is the faster of both libraries' products of two 2048 x 2048 matrices,
measured between the rounds. Prints tables in Markdown; writes them as JSON, and as a plot where
there are several batch sizes.
"""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from workers import Worker

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.config import Config, ModelConfig, TrainingConfig
from glow_jax.files import write_json
from glow_jax.flow import GradientMemory


@dataclass(frozen=True)
class Arguments:
    """What is measured."""

    K: int = 32
    L: int = 3
    hidden_channels: int = 512
    image_size: int = 32
    batch_sizes: tuple[int, ...] = (16,)
    memory: GradientMemory = "remat"
    """what JAX's gradient keeps"""
    rounds: int = 5
    output: Path = Path("docs/benchmarks/speed")
    """where the JSON and the plot go, without their endings"""


@dataclass(frozen=True)
class Row:
    """One task at one batch size; each side's rates in images a second, round by round."""

    task: str
    batch_size: int
    rates: dict[str, list[float]]
    peak_flops: list[float]
    flop_per_image: float

    def ratios(self, side: str) -> list[float]:
        """JAX's rate over another side's, round by round."""
        return [a / b for a, b in zip(self.rates["jax"], self.rates[side], strict=True)]

    def share_of_peak(self, side: str) -> float:
        """Median share of the machine's peak that the products of the convolutions reach."""
        pairs = zip(self.rates[side], self.peak_flops, strict=True)
        return float(np.median([rate * self.flop_per_image / peak for rate, peak in pairs]))


def forward_flop(config: ModelConfig) -> float:
    """Floating-point operations of the products in an image's forward pass."""
    height, width, channels = config.image_shape
    hidden, total = config.hidden_channels, 0.0
    for _ in range(config.L):
        height, width, channels = height // 2, width // 2, channels * 4
        outputs = channels if config.flow_coupling == "affine" else channels // 2
        network = 9 * (channels // 2) * hidden + hidden**2 + 9 * hidden * outputs
        total += 2 * height * width * config.K * (network + channels**2)
        channels //= 2
    return total


SIDES = {"jax": "glow-jax", "torch": "reference", "torch_layers": "layer by layer"}
TASKS = {"likelihood": 1.0, "sampling": 1.0, "training": 3.0}
SECONDS = 2.0  # of a measurement, roughly


def model_of(arguments: Arguments) -> ModelConfig:
    """The architecture."""
    size = arguments.image_size
    return ModelConfig(
        K=arguments.K,
        L=arguments.L,
        hidden_channels=arguments.hidden_channels,
        image_shape=(size, size, 3),
        y_classes=0,
    )


def start(arguments: Arguments, batch_size: int, stack: ExitStack) -> dict[str, Worker]:
    """The process that computes each side, all with the same model."""
    config = Config(
        model=model_of(arguments), training=TrainingConfig(seed=1, batch_size=batch_size)
    )
    in_jax = stack.enter_context(Worker("speed_jax", config, arguments.memory))
    in_torch = stack.enter_context(Worker("speed_torch", config, *in_jax.ask("model_and_input")))
    return {"jax": in_jax, "torch": in_torch, "torch_layers": in_torch}


def measure(arguments: Arguments, batch_size: int) -> tuple[str, list[Row]]:
    """The machine, and every task at one batch size."""
    rows = []
    with ExitStack() as stack:
        workers = start(arguments, batch_size, stack)
        for task, factor in TASKS.items():
            rates: dict[str, list[float]] = {name: [] for name in workers}
            repeats = {}
            for name, worker in workers.items():
                worker.ask("run", name, task, 1)
                taken = worker.ask("run", name, task, 1)
                repeats[name] = max(1, round(SECONDS / taken))
            peaks = []
            for number in range(arguments.rounds):
                peaks.append(max(workers[name].ask("peak") for name in ("jax", "torch")))
                for name, worker in list(workers.items())[:: 1 if number % 2 == 0 else -1]:
                    worker.ask("run", name, task, 1)  # the caches are another's
                    taken = worker.ask("run", name, task, repeats[name])
                    rates[name].append(batch_size * repeats[name] / taken)
            flop = factor * forward_flop(model_of(arguments))
            rows.append(Row(task, batch_size, rates, peaks, flop))
            show(rows[-1])
        return workers["jax"].ask("machine"), rows


def show(row: Row) -> None:
    """A row of the table in Markdown."""
    medians = (f"{np.median(rates):.2f}" for rates in row.rates.values())
    ratios = [row.ratios(side) for side in row.rates if side != "jax"]
    quotients = (f"**{np.median(r):.2f}** ({min(r):.2f} to {max(r):.2f})" for r in ratios)
    shares = (f"{row.share_of_peak(side):.0%}" for side in row.rates)
    cells = (row.task, str(row.batch_size), *medians, *quotients, " ".join(shares))
    print(f"| {' | '.join(cells)} |", flush=True)


def plot(rows: list[Row], path: Path) -> None:
    """Images a second over batch size, a panel for each task."""
    figure, axes = plt.subplots(1, len(TASKS), figsize=(11, 3.5), layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        of_task = [row for row in rows if row.task == task]
        sizes = [row.batch_size for row in of_task]
        for side, label in SIDES.items():
            medians = [np.median(row.rates[side]) for row in of_task]
            axis.plot(sizes, medians, "o-", label=label)
        axis.set(title=task, xlabel="batch size", xscale="log", ylim=(0, None))
        axis.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes[0].set_ylabel("images/s")
    axes[0].legend()
    figure.savefig(path, dpi=120)


@one_line_errors
def main() -> None:
    """Measure, print, write."""
    arguments = parse(Arguments)
    columns = ["task, images/s", "batch", *SIDES.values()]
    columns += [f"JAX over {label}" for side, label in SIDES.items() if side != "jax"]
    columns += ["of peak"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    machine, rows = "", []
    for batch_size in arguments.batch_sizes:
        machine, more = measure(arguments, batch_size)
        rows += more
    print(f"\n{machine}; memory {arguments.memory}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    about = {**asdict(arguments), "output": str(arguments.output)}
    results = {"machine": machine, "arguments": about, "rows": [asdict(row) for row in rows]}
    write_json(arguments.output.with_suffix(".json"), results)
    if len(arguments.batch_sizes) > 1:
        plot(rows, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
