"""Data parallelism by `jax.pmap`: the one place that knows how many devices there are."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from glow_jax.errors import GlowError

_AXIS = "devices"
_T = TypeVar("_T")


def mean_over_devices(tree: _T) -> _T:
    """The mean of each device's tree, inside a function that `DataParallel` runs."""
    return jax.lax.pmean(tree, _AXIS)


def make_virtual_devices(count: int) -> None:
    """Let a CPU count as `count` devices; must come before the first computation."""
    jax.config.update("jax_num_cpu_devices", count)


class DataParallel:
    """Runs functions on several devices, each with a copy of the model and a share of the batch."""

    def __init__(self, count: int = 0):
        """Use `count` local devices, 0 for all.

        Raises:
            GlowError: there are fewer.
        """
        there = jax.local_devices()
        if count > len(there):
            kind = there[0].platform.upper()
            raise GlowError(f"--devices {count}: this machine has {len(there)} {kind} device(s).")
        self.devices = there[: count or len(there)]

    def __str__(self) -> str:
        """For example `8 GPU devices`."""
        plural = "s" if len(self.devices) > 1 else ""
        return f"{len(self.devices)} {self.devices[0].platform.upper()} device{plural}"

    def check_batch_size(self, batch_size: int) -> None:
        """Raise `GlowError` unless every device gets an equal share of a training batch."""
        count = len(self.devices)
        if batch_size % count:
            below, above = batch_size // count * count, -(-batch_size // count) * count
            nearest = f"{below} or {above}" if below else str(above)
            raise GlowError(
                f"batch_size {batch_size} cannot be shared equally by {self}; the nearest that can "
                f"are {nearest}."
            )

    def replicate(self, tree: _T) -> _T:
        """A copy of every array on every device: adds a leading axis."""
        return jax.pmap(lambda _, values: values, in_axes=(0, None), devices=self.devices)(
            np.arange(len(self.devices)), tree
        )

    def gather(self, tree: _T) -> _T:
        """One copy of what is the same on every device."""
        return jax.tree.map(lambda leaf: leaf[0], tree)

    def train_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Run `step(state, *batch)` on a replicated state and a batch shared out over devices.

        The state's memory is donated. What `step` returns stays replicated.
        """
        compiled = jax.pmap(step, axis_name=_AXIS, devices=self.devices, donate_argnums=0)
        return lambda state, *batch: compiled(state, *(self._share(part) for part in batch))

    def per_example(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Run `function(replicated, *batch)`, which returns arrays with a leading batch axis.

        A batch may be of any size: it is padded up to what the devices share equally, or to
        `pad_to`, and the results of the padding are cut off.
        """
        compiled = jax.pmap(function, axis_name=_AXIS, devices=self.devices)

        def run(replicated: Any, *batch: np.ndarray, pad_to: int = 0) -> Any:
            size, count = len(batch[0]), len(self.devices)
            padding = -(-max(size, pad_to) // count) * count - size
            padded = (np.concatenate([part, part[:1].repeat(padding, 0)]) for part in batch)
            results = compiled(replicated, *(self._share(part) for part in padded))
            return jax.tree.map(lambda leaf: np.concatenate(np.asarray(leaf))[:size], results)

        return run

    def _share(self, array: np.ndarray) -> np.ndarray:
        """(B, ...) -> (devices, B / devices, ...)."""
        count = len(self.devices)
        return array.reshape(count, len(array) // count, *array.shape[1:])
