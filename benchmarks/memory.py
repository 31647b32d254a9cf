"""What a gradient needs of memory, and how long it takes to compile, over the depth of the model.

    python benchmarks/memory.py                  (depth: temporary memory and compile time)
    python benchmarks/memory.py --largest_batch  (256x256, L=6: the largest batch within 16 GiB)

Memory is what XLA's own analysis of the compiled program says: nothing is run. For PyTorch it is
what autograd saves for the backward pass, counted by hooks while one image is encoded. Prints
tables in Markdown; writes them as JSON, and the depths as a plot.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from figures import markdown, write
from flax import nnx

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.compiler import fast_to_compile
from glow_jax.config import Config, ModelConfig, TrainingConfig
from glow_jax.flow import GradientMemory
from glow_jax.model import Glow, computing
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import make_train_step, new_state

MODES: tuple[GradientMemory, ...] = get_args(GradientMemory)
MIB, GIB = 2**20, 2**30
LIMIT = 16 * GIB


@dataclass(frozen=True)
class Arguments:
    """What is measured."""

    largest_batch: bool = False
    """the largest batch within 16 GiB in place of memory and compile time over depth"""
    depths: tuple[int, ...] = (4, 8, 16, 32, 64)
    hidden_channels: int = 512
    batch_size: int = 16
    output: Path = Path("docs/benchmarks")
    """folder of the JSON and the plot"""


def abstract_model(config: ModelConfig, memory: GradientMemory) -> Glow:
    """A model of shapes."""
    return nnx.eval_shape(lambda: computing(Glow(config, rngs=nnx.Rngs(0)), memory=memory))


def compile_gradient(
    config: ModelConfig, memory: GradientMemory, batch_size: int
) -> tuple[float, float]:
    """Temporary memory of `value_and_grad` in bytes, and the seconds it took to compile."""
    graph, params, buffers = nnx.split(abstract_model(config, memory), nnx.Param, ...)
    x = jax.ShapeDtypeStruct((batch_size, *config.image_shape), jnp.float32)

    def loss(params: nnx.State, buffers: nnx.State, x: jax.Array) -> jax.Array:
        return -nnx.merge(graph, params, buffers).log_prob(x).mean()

    started = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, buffers, x).compile()
    seconds = time.perf_counter() - started
    analysis = compiled.memory_analysis()
    assert analysis is not None, "this backend does not analyse memory"
    return analysis.temp_size_in_bytes, seconds


def training_bytes(config: Config, batch_size: int) -> float:
    """Everything a training step holds: state, batch and temporary memory; the state is donated."""
    model = abstract_model(config.model, config.training.memory)
    optimizer = make_optimizer(config.optimizer, 1)
    state = jax.eval_shape(lambda: new_state(model, optimizer, config))
    step = make_train_step(optimizer, config, prepare=lambda images, *_: jnp.asarray(images))
    shapes = [(batch_size, *config.model.image_shape), (batch_size, 0), (batch_size,)]
    batch = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    lowered = jax.jit(step, donate_argnums=0).lower(state, *batch)
    platform = jax.local_devices()[0].platform
    compiled = lowered.compile(compiler_options=fast_to_compile(platform))  # train.py's options
    analysis = compiled.memory_analysis()
    assert analysis is not None, "this backend does not analyse memory"
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes


def largest(needs: Callable[[int], float]) -> tuple[int, float]:
    """The largest batch within the limit, and its bytes; (0, bytes of one image) if none fits."""
    if needs(1) > LIMIT:
        return 0, needs(1)
    fits, too_large, slope = 1, math.inf, needs(2) - needs(1)
    while too_large - fits > 1:
        # Memory is nearly linear in the batch: few programs have to be compiled.
        guess = fits + max(1, int((LIMIT - needs(fits)) / max(slope, 1)))
        guess = int(min(guess, too_large - 1))
        slope = (needs(guess) - needs(fits)) / (guess - fits)
        fits, too_large = (guess, too_large) if needs(guess) <= LIMIT else (fits, guess)
    return fits, needs(fits)


def torch_bytes(config: ModelConfig) -> Callable[[int], float]:
    """What PyTorch holds for a batch: weights, gradients, Adamax, and what autograd saves.

    Temporaries of the backward pass are not counted.
    """
    import torch

    from glow_jax.bridge import torch_glow

    model = torch_glow.Glow(
        image_shape=config.image_shape,
        K=config.K,
        L=config.L,
        hidden_channels=config.hidden_channels,
    )
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    height, width, channels = config.image_shape

    def saved(batch: int) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = torch_glow.loss(model, torch.rand(batch, channels, height, width) - 0.5)
        total = sum(size for place, size in kept.items() if place not in weights)
        del loss
        return total

    one, two = saved(1), saved(2)  # folded kernels do not grow with the batch
    constant = 16.0 * sum(p.numel() for p in model.parameters()) + 2 * one - two
    return lambda batch: constant + (two - one) * batch


def over_depth(arguments: Arguments) -> None:
    """Temporary memory and compile time for each depth and mode."""
    rows = []
    for K in arguments.depths:
        config = ModelConfig(
            K=K, hidden_channels=arguments.hidden_channels, image_shape=(32, 32, 3), y_classes=0
        )
        found = {mode: compile_gradient(config, mode, arguments.batch_size) for mode in MODES}
        rows.append({"K": K} | {mode: list(values) for mode, values in found.items()})
        print(f"K = {K}: done", flush=True)
    results = {"batch_size": arguments.batch_size, "rows": rows}
    write(arguments.output / "memory.json", **results)
    print(f"\n{table(results)}")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for mode in MODES:
        for axis, index, unit in ((axes[0], 0, MIB), (axes[1], 1, 1)):
            values = [row[mode][index] / unit for row in rows]
            axis.plot(arguments.depths, values, "o-", label=mode)
    axes[0].set(xlabel="K, steps in each level", ylabel="temporary memory, MiB", yscale="log")
    axes[1].set(xlabel="K, steps in each level", ylabel="compile time, s", ylim=(0, None))
    axes[0].legend()
    figure.savefig(arguments.output / "memory.png", dpi=120)


def at_256(arguments: Arguments) -> None:
    """The largest batch for each mode, and for PyTorch."""
    model = ModelConfig(
        L=6, hidden_channels=arguments.hidden_channels, image_shape=(256, 256, 3), y_classes=0
    )
    rows = {}
    for mode in MODES:
        config = Config(model=model, training=TrainingConfig(memory=mode))
        batch, needed = largest(functools.cache(partial(training_bytes, config)))
        rows[mode] = {"batch": batch, "bytes": needed}
        print(f"{mode}: done", flush=True)
    batch, needed = largest(torch_bytes(model))
    rows["torch"] = {"batch": batch, "bytes": needed}
    write(arguments.output / "largest_batch.json", rows=rows)
    print(f"\n{largest_table({'rows': rows})}")


def table(results: Mapping[str, Any]) -> str:
    """Temporary memory and compile time over depth, in Markdown."""
    rows = []
    for row in results["rows"]:
        pairs = [(f"{row[mode][0] / MIB:.1f}", f"{row[mode][1]:.1f}") for mode in MODES]
        rows.append([row["K"], *(cell for pair in pairs for cell in pair)])
    return markdown(["K", *(name for mode in MODES for name in (f"{mode}, MiB", "s"))], rows)


def largest_table(results: Mapping[str, Any]) -> str:
    """The largest batches within the limit, in Markdown."""
    names = {"torch": "PyTorch reference, counting only what autograd saves and the state"}
    rows = [
        (names.get(name, name), row["batch"], f"{row['bytes'] / GIB:.1f}")
        for name, row in results["rows"].items()
    ]
    return markdown(["", "largest batch", "GiB it takes"], rows)


@one_line_errors
def main() -> None:
    """Measure, print, write."""
    arguments = parse(Arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (at_256 if arguments.largest_batch else over_depth)(arguments)


if __name__ == "__main__":
    main()
