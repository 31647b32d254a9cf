"""Training, likelihood and sampling against the project's PyTorch reference, in turn.

    python benchmarks/speed.py                       (the published size, batch 16; needs PyTorch)
    python benchmarks/speed.py --batch_sizes 1 4 16 64 --rounds 3

All compute the same Glow in float32 in one process, with the same number of threads, in turn: JAX,
the PyTorch reference of `convert/`, and the same layer by layer, as Glow-PyTorch computes. What is
compared is the median, and a quotient is the median of the rounds' quotients. The machine's peak is
the faster of both libraries' products of two 2048 x 2048 matrices, measured between the rounds.
Prints tables in Markdown; writes them as JSON, and as a plot where there are several batch sizes.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import torch
from flax import nnx
from layer_by_layer import compute_layer_by_layer
from machine import machine, threads

from convert import mapping, torch_glow
from glow_jax.cli import one_line_errors, parse
from glow_jax.compilation import keep_compiled_programs
from glow_jax.config import Config, ModelConfig, TrainingConfig
from glow_jax.files import write_json
from glow_jax.flow import Memory
from glow_jax.model import Glow, computing, initialise_actnorm, take_apart
from glow_jax.parallel import DataParallel, mean_over_devices
from glow_jax.training.optimizer import WEIGHT_DECAY, make_optimizer
from glow_jax.training.step import make_train_step, new_state, prepare_images


@dataclass(frozen=True)
class Arguments:
    """What is measured."""

    K: int = 32
    L: int = 3
    hidden_channels: int = 512
    image_size: int = 32
    batch_sizes: tuple[int, ...] = (16,)
    memory: Memory = "remat"
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


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


def seconds(run: Callable[[], Any]) -> float:
    """How long a call takes, including what the device still has to do."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def synchronise() -> None:
    """Wait for PyTorch's device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak() -> float:
    """Floating-point operations a second of the faster float32 matrix product."""
    size = 2048
    left, right = (torch.randn(size, size, device=DEVICE) for _ in range(2))
    one, other = (jnp.asarray(part.cpu().numpy()) for part in (left, right))
    product = jax.jit(partial(jnp.matmul, precision="highest"))

    def in_torch() -> None:
        torch.mm(left, right)
        synchronise()

    runs = (in_torch, lambda: product(one, other).block_until_ready())
    for run in runs:
        run()
    return 2 * size**3 / min(seconds(run) for run in runs for _ in range(3))


class JaxSide:
    """The tasks in JAX."""

    def __init__(self, config: Config, memory: Memory, images: np.ndarray):
        """Build the model, initialised from the images, and compile nothing yet."""
        self.images, self.indices = images, np.arange(len(images), dtype=np.uint32)
        prepare = partial(prepare_images, config=config, flips=False, shifts=False)
        self.x = prepare(images, 0, self.indices)
        model = jax.jit(lambda key: Glow(config.model, rngs=nnx.Rngs(key)))(jax.random.key(0))
        self.model = computing(initialise_actnorm(model, self.x), memory=memory)
        self.optimizer = make_optimizer(config.optimizer, 1)
        parts, parallel = take_apart(self.model), DataParallel(1)
        step = make_train_step(
            parts.graph, self.optimizer, config, prepare=prepare, mean=mean_over_devices
        )
        self._step = parallel.train_step(step)
        self.state = parallel.replicate(new_state(parts, self.optimizer, config))

    def training(self) -> None:
        """One step."""
        labels = np.empty((len(self.images), 0), np.float32)
        batch = (self.images, labels, self.indices)
        self.state, metrics, _ = self._step(self.state, np.zeros(1, np.int32), *batch)
        jax.block_until_ready((self.state, metrics))

    def likelihood(self) -> None:
        """Log-likelihood of the batch."""
        self.model.log_prob(self.x).block_until_ready()

    def sampling(self) -> None:
        """As many samples as the batch has images."""
        self.model.sample(jax.random.key(0), len(self.images)).block_until_ready()


class TorchSide:
    """The same tasks in PyTorch."""

    def __init__(self, config: Config, model: Glow, x: np.ndarray, *, layer_by_layer: bool):
        """Build the same model with the same parameters."""
        reference = mapping.build_reference(config.model, mapping.from_glow(model))
        self.model = (compute_layer_by_layer(reference) if layer_by_layer else reference).to(DEVICE)
        self.x = torch.from_numpy(np.array(x.transpose(0, 3, 1, 2))).to(DEVICE)
        self.optimizer = torch.optim.Adamax(
            self.model.parameters(), lr=config.optimizer.lr, weight_decay=WEIGHT_DECAY
        )
        shapes = config.model.latent_shapes
        self.noise = [torch.randn(len(x), c, h, w, device=DEVICE) for h, w, c in shapes]

    def training(self) -> None:
        """One step."""
        self.optimizer.zero_grad()
        torch_glow.loss(self.model, self.x).backward()
        self.optimizer.step()
        synchronise()

    @torch.no_grad()
    def likelihood(self) -> None:
        """Log-likelihood of the batch."""
        self.model.encode(self.x)
        synchronise()

    @torch.no_grad()
    def sampling(self) -> None:
        """As many samples as the batch has images."""
        self.model.decode_noise(self.noise)
        synchronise()


SIDES = {"jax": "glow-jax", "torch": "reference", "torch_layers": "layer by layer"}
TASKS = {"likelihood": 1.0, "sampling": 1.0, "training": 3.0}


def measure(arguments: Arguments, batch_size: int) -> list[Row]:
    """Every task at one batch size."""
    side = arguments.image_size
    model = ModelConfig(
        K=arguments.K,
        L=arguments.L,
        hidden_channels=arguments.hidden_channels,
        image_shape=(side, side, 3),
        y_classes=0,
    )
    config = Config(model=model, training=TrainingConfig(seed=1, batch_size=batch_size))
    images = np.random.default_rng(0).integers(0, 256, (batch_size, side, side, 3), np.uint8)
    ours = JaxSide(config, arguments.memory, images)
    x = np.asarray(ours.x)
    sides = {
        "jax": ours,
        "torch": TorchSide(config, ours.model, x, layer_by_layer=False),
        "torch_layers": TorchSide(config, ours.model, x, layer_by_layer=True),
    }
    rows = []
    for task, factor in TASKS.items():
        runs = {name: getattr(side, task) for name, side in sides.items()}
        for warm_up in runs.values():
            warm_up()
        once = seconds(runs["torch"])
        repeats = max(1, round(2 / once))  # some two seconds a measurement
        rates: dict[str, list[float]] = {name: [] for name in sides}
        peaks = []
        for number in range(arguments.rounds):
            peaks.append(peak())
            for name, run in list(runs.items())[:: 1 if number % 2 == 0 else -1]:
                run()  # the first call after another library's is slower for all
                taken = sum(seconds(run) for _ in range(repeats))
                rates[name].append(batch_size * repeats / taken)
        rows.append(Row(task, batch_size, rates, peaks, factor * forward_flop(model)))
        show(rows[-1])
    return rows


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
    keep_compiled_programs()
    torch.set_num_threads(threads())
    torch.backends.cudnn.allow_tf32 = False  # nor does JAX round to TF32 here
    print(f"{machine()}; memory {arguments.memory}\n")
    columns = ["task, images/s", "batch", *SIDES.values()]
    columns += [f"JAX over {label}" for side, label in SIDES.items() if side != "jax"]
    columns += ["of peak"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    rows = [row for size in arguments.batch_sizes for row in measure(arguments, size)]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    about = {**asdict(arguments), "output": str(arguments.output)}
    results = {"machine": machine(), "arguments": about}
    write_json(
        arguments.output.with_suffix(".json"), results | {"rows": [asdict(row) for row in rows]}
    )
    if len(arguments.batch_sizes) > 1:
        plot(rows, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
