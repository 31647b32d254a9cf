"""Several processes that train together: how they find, tell and lose each other."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glow_jax.errors import GlowError

# A process that falls silent for this long is dead, and the others stop.
_SILENCE_SECONDS = 30
# What the errors of lost connections speak of, be it on CPU, GPU or TPU.
_LOST = re.compile("gloo|nccl|connection|coordination|heartbeat|barrier|unavailable", re.IGNORECASE)
_T = TypeVar("_T")


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
    """Turn what JAX raises after the loss of another process into one sentence.

    Raises:
        GlowError: this sentence, instead of JAX's error.
    """
    try:
        yield
    except GlowError:
        raise
    except (RuntimeError, ValueError) as error:  # Orbax raises some of JAX's errors as its own
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

    def share(leaf: jax.typing.ArrayLike) -> jax.Array:
        local = jax.device_put(leaf, jax.local_devices()[0])
        return jax.make_array_from_single_device_arrays(local.shape, replicated, [local])

    return jax.tree.map(share, tree)
