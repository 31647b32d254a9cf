"""Data parallelism by `jax.pmap`: the one place that knows how many devices there are.

A process holds a copy of the model on each of its devices and reads its share of every batch. What
passes between devices is what `mean_over_devices` takes the mean of, and what a process wishes.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glow_jax.devices.compilation import fast_to_compile
from glow_jax.errors import GlowError

_AXIS = "devices"
# A process that falls silent for this long is dead, and the others stop.
_SILENCE_SECONDS = 30
# What the errors of lost connections speak of, be it on CPU, GPU or TPU.
_LOST = re.compile("gloo|nccl|connection|coordination|heartbeat|barrier|unavailable", re.IGNORECASE)
_T = TypeVar("_T")


def mean_over_devices(tree: _T) -> _T:
    """The mean of each device's tree, inside a function that `DataParallel` runs."""
    # Over one device XLA keeps the all-reduce, which copies every gradient.
    return tree if jax.lax.axis_size(_AXIS) == 1 else jax.lax.pmean(tree, _AXIS)


def make_virtual_devices(count: int) -> None:
    """Let a CPU count as `count` devices; must come before the first computation."""
    jax.config.update("jax_num_cpu_devices", count)


def join_processes(coordinator: str, num_processes: int, process_id: int | None) -> None:
    """Become one of several processes that train together; must come before any computation.

    Args:
        coordinator: HOST:PORT where process 0 can be reached; empty to ask the cluster (SLURM, TPU
            pods and others that JAX knows), and to stay alone where there is none.
        num_processes: how many there are.
        process_id: which of them this is.

    Raises:
        GlowError: the others cannot be reached.
    """
    # JAX would catch SIGTERM from here on, and forget it: until training listens, it should end us.
    jax.config.update("jax_enable_preemption_service", False)
    chosen = {}
    if coordinator:
        chosen = {"num_processes": num_processes, "process_id": process_id}
        chosen |= {"coordinator_address": coordinator, "cluster_detection_method": "deactivate"}
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=_SILENCE_SECONDS, **chosen)
    except ValueError:  # JAX's way to say that it knows of no cluster
        if coordinator:
            raise
    except RuntimeError as error:
        # A program that computes already, and then calls this one, is no cluster's.
        if coordinator or "must be called before" not in str(error):
            raise GlowError(
                f"The other processes of this run cannot be joined"
                f"{' at ' + coordinator if coordinator else ''}: {str(error).splitlines()[0]}"
            ) from error


def has_joined_processes() -> bool:
    """Whether `join_processes` found others."""
    return jax.distributed.is_initialized()


def is_main_process() -> bool:
    """Whether this process is the one that writes logs and pictures."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether there is one process only."""
    return jax.process_count() == 1


@contextlib.contextmanager
def losing_processes() -> Iterator[None]:
    """What JAX raises inside once another process is gone becomes one sentence.

    Raises:
        GlowError: in its place.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # Orbax hands on some of what JAX raises as its own
        if is_alone() or not _LOST.search(str(error)):
            raise
        raise GlowError(
            f"Process {jax.process_index()} has lost another process of this run: all of them stop."
            " Start every one again with --resume."
        ) from error


def leave(status: int) -> NoReturn:
    """End this process, at once where others wait for it that should end as well."""
    if has_joined_processes():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # sys.exit would first wait for the others, and they for this one
    sys.exit(status)


def wait_for_processes(place: str) -> None:
    """Return once every process has called this, from the same `place`."""
    if not is_alone():
        multihost_utils.sync_global_devices(place)


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """What is inside happens in the main process before it happens in the others."""
    if not is_main_process():
        wait_for_processes("main process first")
    yield
    if is_main_process():
        wait_for_processes("main process first")


def of_main_process(tree: _T) -> _T:
    """The main process's tree, in every process."""
    return tree if is_alone() else multihost_utils.broadcast_one_to_all(tree)


def same_in_all_processes(number: int) -> bool:
    """Whether every process calls this with the same number, below 2^32."""
    if is_alone():
        return True
    return len(np.unique(multihost_utils.process_allgather(np.uint32(number)))) == 1


def sum_over_processes(array: np.ndarray) -> np.ndarray:
    """The sum of every process's float64 array."""
    if is_alone():
        return array
    # As pairs of integers, because JAX would round float64 to float32 on the way.
    gathered = multihost_utils.process_allgather(np.ascontiguousarray(array).view(np.uint32))
    return np.asarray(gathered).view(np.float64).sum(axis=0)


def as_global(tree: _T) -> _T:
    """A tree that is the same in every process, as arrays that all processes own together."""
    firsts = np.array([jax.local_devices(process)[0] for process in range(jax.process_count())])
    replicated = NamedSharding(Mesh(firsts, "processes"), PartitionSpec())

    def convert(leaf: Any) -> jax.Array:
        local = jax.device_put(leaf, jax.local_devices()[0])
        return jax.make_array_from_single_device_arrays(local.shape, replicated, [local])

    return jax.tree.map(convert, tree)


class DataParallel:
    """Runs functions on several devices, each with a copy of the model and a share of the batch."""

    def __init__(self, count: int = 0):
        """Use `count` devices of each process, 0 for all.

        Raises:
            GlowError: there are fewer.
        """
        there = jax.local_devices()
        if count > len(there):
            kind = there[0].platform.upper()
            raise GlowError(
                f"devices is {count}; this machine has {len(there)} {kind} "
                f"device{'s' if len(there) > 1 else ''}: give --devices {len(there)} or fewer."
            )
        self.processes = jax.process_count()
        self.process = jax.process_index()
        self.local_count = count or len(there)
        self._devices = [
            device
            for process in range(self.processes)
            for device in jax.local_devices(process)[: self.local_count]
        ]
        self._on_cpu = there[0].platform == "cpu"

    @property
    def count(self) -> int:
        """The number of devices, over all processes."""
        return len(self._devices)

    def __str__(self) -> str:
        """For example `8 GPU devices`."""
        kind = self._devices[0].platform.upper()
        virtual = "virtual " if self._on_cpu and self.local_count > 1 else ""
        plural = "s" if self.count > 1 else ""
        processes = f" in {self.processes} processes" if self.processes > 1 else ""
        return f"{self.count} {virtual}{kind} device{plural}{processes}"

    @property
    def compiles_ahead(self) -> bool:
        """Whether `SharedStep` compiles by itself, in order to choose the compiler's options.

        Not in several processes: what pmap compiles ahead takes arrays of all of them together.
        """
        return self._on_cpu and self.processes == 1

    @property
    def remark(self) -> str | None:
        """What a user should know of these devices, if anything."""
        if self._on_cpu and self.local_count > 1:
            return (
                f"This machine's CPU counts as {self.local_count} virtual devices: the results are "
                "the same, and no faster."
            )
        return None

    def check_batch_size(self, batch_size: int) -> None:
        """Raise `GlowError` unless every device gets an equal share of a training batch."""
        if batch_size % self.count:
            below = batch_size // self.count * self.count
            above = below + self.count
            nearest = f"{below} or {above}" if below else str(above)
            raise GlowError(
                f"batch_size {batch_size} cannot be shared equally by {self}; the nearest that can "
                f"are {nearest}."
            )

    def replicate(self, tree: _T) -> _T:
        """A copy of every array on every device: adds a leading axis."""
        # The axis is called as in the training step, which would be compiled anew for another.
        copy = jax.pmap(lambda _, values: values, _AXIS, in_axes=(0, None), devices=self._devices)
        return copy(np.arange(self.local_count), tree)

    def gather(self, tree: _T) -> _T:
        """One copy, on this process's first device, of what is the same on every device."""
        return _squeeze(jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree))

    def read(self, tree: Any) -> Any:
        """The same as numbers on the host: no device has to compute anything, or wait."""
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], tree)

    def train_step(self, step: Callable[..., Any]) -> "SharedStep":
        """Run `step(state, *batch) -> (state, metrics)` on batches shared out over the devices.

        The state is replicated and its memory donated; what `step` returns stays replicated.
        """

        def with_wishes(state: Any, wishes: jax.Array, *batch: jax.Array) -> Any:
            return *step(state, *batch), jax.lax.pmax(wishes, _AXIS)

        compiled = jax.pmap(with_wishes, _AXIS, devices=self._devices, donate_argnums=0)
        return SharedStep(compiled, self)

    def per_example(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Run `function(replicated, *batch)`, which returns arrays with a leading batch axis.

        A batch, here this process's share of it, may be of any size: it is padded up to what the
        devices share equally, or to its share of `pad_to`, and the padding's results are cut off.
        """
        compiled = jax.pmap(function, axis_name=_AXIS, devices=self._devices)

        def run(replicated: Any, *batch: np.ndarray, pad_to: int = 0) -> Any:
            size = len(batch[0])
            each = -(-max(size * self.processes, pad_to) // self.count)
            padding = each * self.local_count - size
            padded = (
                np.concatenate([part, np.zeros((padding, *part.shape[1:]), part.dtype)])
                for part in batch
            )
            results = compiled(replicated, *(self.share(part) for part in padded))
            return jax.tree.map(lambda leaf: _on_host(leaf)[:size], results)

        return run

    def share(self, array: np.ndarray) -> np.ndarray:
        """(B, ...) -> (this process's devices, B / devices, ...)."""
        return array.reshape(self.local_count, len(array) // self.local_count, *array.shape[1:])


class SharedStep:
    """A training step over all devices, as `DataParallel.train_step` makes it."""

    def __init__(self, compiled: Any, parallel: DataParallel):
        """Wrap a function that `jax.pmap` returned."""
        self._shared = compiled
        self._programs: dict[tuple[tuple[int, ...], ...], Any] = {}
        self._parallel = parallel

    def __call__(self, state: Any, wishes: np.ndarray, *batch: np.ndarray) -> tuple[Any, Any, Any]:
        """Do a step.

        Args:
            state: replicated; its memory is given away.
            wishes: integers, (n,), that this process wants the others to know.
            batch: this process's share of the batch, arrays (B, ...).

        Returns:
            The state and the step's metrics, and the largest wish of any process, all replicated.
        """
        arguments = self._arguments(wishes, batch)
        if not self._parallel.compiles_ahead:
            return self._shared(state, *arguments)
        shapes = tuple(leaf.shape for leaf in arguments)
        if shapes not in self._programs:
            self._programs[shapes] = self.compile(state, wishes, *batch)
        return self._programs[shapes](state, *arguments)

    def compile(self, state: Any, wishes: np.ndarray, *batch: np.ndarray) -> Any:
        """The compiled program for such arguments: what a call runs if it compiles ahead."""
        lowered = self._shared.lower(state, *self._arguments(wishes, batch))
        return lowered.compile(compiler_options=fast_to_compile())

    def _arguments(self, wishes: np.ndarray, batch: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        everywhere = np.broadcast_to(wishes, (self._parallel.local_count, *wishes.shape))
        return [everywhere, *(self._parallel.share(part) for part in batch)]


@jax.jit
def _squeeze(tree: Any) -> Any:
    """Without the axis of devices: one program, where an index for each leaf would be hundreds."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _on_host(leaf: jax.Array) -> np.ndarray:
    """(devices, b, ...) -> (this process's devices * b, ...)."""
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data)[0] for shard in shards])
