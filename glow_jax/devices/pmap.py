"""Data parallelism: the only module that uses `jax.pmap`.

A process holds a copy of the model on each of its devices and reads its part of every batch.
Devices exchange only what `mean_over_devices` averages and what the processes request.
"""

from collections.abc import Callable
from typing import Generic, TypeVar, TypeVarTuple

import jax
import numpy as np
from jax.experimental.topologies import TopologyDescription
from jax.stages import Compiled

from glow_jax.compiler import fast_to_compile
from glow_jax.errors import GlowError
from glow_jax.typing import Array

_AXIS = "devices"
_T = TypeVar("_T")
_State = TypeVar("_State")
_Metrics = TypeVar("_Metrics")
_Requests = TypeVar("_Requests")
_Batch = TypeVarTuple("_Batch")


def make_virtual_devices(count: int) -> None:
    """Make the CPU count as `count` devices; call this before the first computation."""
    jax.config.update("jax_num_cpu_devices", count)


def use_cpu() -> None:
    """Compute on the CPU, even if there are GPUs or TPUs; call before the first computation."""
    jax.config.update("jax_platforms", "cpu")


def mean_over_devices(tree: _T) -> _T:
    """The mean of each device's tree, inside a function that `Devices` runs."""
    # With one device XLA would keep the all-reduce, which copies every gradient.
    return tree if jax.lax.axis_size(_AXIS) == 1 else jax.lax.pmean(tree, _AXIS)


class Devices:
    """The devices that a program computes on, each with a copy of the model."""

    def __init__(self, count: int = 0, *, absent: TopologyDescription | None = None):
        """Use `count` devices of each process; 0 means all.

        Args:
            count: the number.
            absent: a machine that is not there. Programs compile for its devices; none can be run.

        Raises:
            GlowError: this machine has fewer devices.
        """
        there = absent.devices if absent else jax.local_devices()
        if count > len(there):
            kind = there[0].platform.upper()
            raise GlowError(
                f"devices is {count}; this machine has {len(there)} {kind} "
                f"device{'s' if len(there) > 1 else ''}: give --devices {len(there)} or fewer."
            )
        self.processes = jax.process_count()
        self.process = jax.process_index()
        self.local_count = count or len(there)
        self.platform = there[0].platform
        self._devices = [
            device
            for process in range(self.processes)
            for device in (absent.devices if absent else jax.local_devices(process))[
                : self.local_count
            ]
        ]
        # The axis has the training step's name: for another name the step would compile again.
        self._copy = jax.pmap(_second, _AXIS, in_axes=(0, None), devices=self._devices)
        self._compiled: dict[tuple[object, ...], Callable[..., tuple[jax.Array, ...]]] = {}

    @property
    def count(self) -> int:
        """The number of devices, over all processes."""
        return len(self._devices)

    def __str__(self) -> str:
        """For example `8 GPU devices`."""
        virtual = "virtual " if self._are_virtual else ""
        plural = "s" if self.count > 1 else ""
        processes = f" in {self.processes} processes" if self.processes > 1 else ""
        return f"{self.count} {virtual}{self.platform.upper()} device{plural}{processes}"

    @property
    def _are_virtual(self) -> bool:
        return self.platform == "cpu" and self.local_count > 1

    @property
    def remark(self) -> str | None:
        """What the user should know about these devices, if anything."""
        if not self._are_virtual:
            return None
        return (
            f"This machine's CPU counts as {self.local_count} virtual devices: the results are the "
            "same, but no faster."
        )

    def check_batch_size(self, batch_size: int) -> None:
        """Raise `GlowError` unless every device gets an equal part of a training batch."""
        if batch_size % self.count:
            below = batch_size // self.count * self.count
            above = below + self.count
            nearest = f"{below} or {above}" if below else str(above)
            raise GlowError(
                f"batch_size {batch_size} cannot be shared equally by {self}; the nearest that can "
                f"are {nearest}."
            )

    @property
    def compile_ahead(self) -> bool:
        """Whether programs are compiled before they are called: `jax.pmap` takes no options."""
        # With several processes, a program compiled ahead of time would need the arrays of all.
        return self.platform == "cpu" and self.processes == 1

    def replicate(self, tree: _T) -> _T:
        """Copy every array to every device; this adds a leading axis."""
        return self._copy(np.arange(self.local_count), tree)

    def first_copy(self, tree: _T) -> _T:
        """One copy of a replicated tree, on this process's first device."""
        return _without_devices(jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree))

    def to_host(self, tree: _T) -> _T:
        """One copy of a replicated tree on the host; no device has to compute or wait for it."""
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], tree)

    def training_step(
        self, step: "Callable[[_State, *_Batch], tuple[_State, _Metrics]]"
    ) -> "SharedStep[_State, _Metrics]":
        """Make `step(state, *batch) -> (state, metrics)` run on batches divided among the devices.

        The state is replicated, and its memory is donated. The results of `step` are replicated.
        """

        def with_requests(
            state: _State, requests: _Requests, *batch: *_Batch
        ) -> tuple[_State, _Metrics, _Requests]:
            return *step(state, *batch), jax.lax.pmax(requests, _AXIS)

        shared = jax.pmap(with_requests, _AXIS, devices=self._devices, donate_argnums=0)
        return SharedStep(shared, self)

    def map_images(
        self,
        function: "Callable[[_T, *_Batch], tuple[jax.Array, ...]]",
        replicated: _T,
        *batch: *_Batch,
        pad_to: int = 0,
    ) -> tuple[np.ndarray, ...]:
        """Run `function(tree, *batch)`, whose results have a leading batch axis.

        This process's part of the batch may be of any size. It is padded to a size that the devices
        share equally, or to its part of `pad_to`; the results of the padding are cut off.

        Args:
            function: compiled once for each shape of its arguments.
            replicated: its first argument, as `replicate` returns it.
            batch: arrays of images, labels, ..., each (B, ...).
            pad_to: images in a whole batch, over all processes.

        Returns:
            The results on the host, each (B, ...).
        """
        arrays = [np.asarray(part) for part in batch]
        size = len(arrays[0])
        each = -(-max(size * self.processes, pad_to) // self.count)
        padding = each * self.local_count - size
        padded = (
            np.concatenate([part, np.zeros((padding, *part.shape[1:]), part.dtype)])
            for part in arrays
        )
        arguments = (replicated, *(self.divide(part) for part in padded))
        results = self._program(function, arguments)(*arguments)
        return tuple(_on_host(leaf)[:size] for leaf in results)

    def _program(
        self, function: Callable[..., tuple[jax.Array, ...]], arguments: tuple[object, ...]
    ) -> Callable[..., tuple[jax.Array, ...]]:
        leaves, structure = jax.tree.flatten(arguments)
        kind = (function, structure, *((leaf.shape, leaf.dtype) for leaf in leaves))
        if kind not in self._compiled:
            program = jax.pmap(function, axis_name=_AXIS, devices=self._devices)
            if self.compile_ahead:
                options = fast_to_compile(self.platform)
                program = program.lower(*arguments).compile(compiler_options=options)
            self._compiled[kind] = program
        return self._compiled[kind]

    def divide(self, array: Array) -> Array:
        """(B, ...) -> (this process's devices, B / devices, ...)."""
        return array.reshape(self.local_count, len(array) // self.local_count, *array.shape[1:])


class SharedStep(Generic[_State, _Metrics]):
    """A training step over all devices; `Devices.training_step` makes it."""

    def __init__(self, shared: "jax.stages.Wrapped", devices: Devices):
        """Wrap a function that `jax.pmap` returned."""
        self._shared = shared
        self._programs: dict[tuple[tuple[int, ...], ...], Compiled] = {}
        self._devices = devices

    def __call__(
        self, state: _State, requests: _Requests, *batch: Array
    ) -> tuple[_State, _Metrics, _Requests]:
        """Run a step.

        Args:
            state: the replicated state; its memory is donated.
            requests: a tree of integers to share with the other processes.
            batch: this process's part of the batch, arrays (B, ...).

        Returns:
            The state, the step's metrics, and the maximum of the requests over all processes, all
            replicated.
        """
        arguments = self._arguments(requests, batch)
        if not self._devices.compile_ahead:
            return self._shared(state, *arguments)
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(arguments))
        if shapes not in self._programs:
            self._programs[shapes] = self.compile(state, requests, *batch)
        return self._programs[shapes](state, *arguments)

    def compile(self, state: _State, requests: object, *batch: Array) -> Compiled:
        """Compile the program for these arguments with the compiler options of the platform."""
        lowered = self._shared.lower(state, *self._arguments(requests, batch))
        return lowered.compile(compiler_options=fast_to_compile(self._devices.platform))

    def _arguments(self, requests: object, batch: tuple[Array, ...]) -> list[object]:
        local_count = self._devices.local_count
        everywhere = jax.tree.map(
            lambda leaf: np.broadcast_to(leaf, (local_count, *np.shape(leaf))), requests
        )
        return [everywhere, *(self._devices.divide(part) for part in batch)]


def _second(_: jax.Array, tree: _T) -> _T:
    return tree


@jax.jit
def _without_devices(tree: _T) -> _T:
    """Remove the device axis in one program; indexing each leaf alone would be hundreds."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _on_host(leaf: jax.Array) -> np.ndarray:
    """(devices, b, ...) -> (this process's devices * b, ...)."""
    shards = sorted(leaf.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data)[0] for shard in shards])
