"""Several processes that train together: joining, exchanging values, and losing one."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn, TypedDict, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glow_jax.devices.slurm import slurm_step
from glow_jax.errors import GlowError

# A process that the others have not joined for this long gives up.
_JOINING_SECONDS = 300
# A process that is silent for this long counts as dead, and the others stop.
_SILENCE_SECONDS = 30
# Words in the errors of lost connections on CPU, GPU or TPU.
_LOST = re.compile("gloo|nccl|connection|coordination|heartbeat|barrier|unavailable", re.IGNORECASE)
_T = TypeVar("_T")


def join_processes(coordinator: str, num_processes: int, process_id: int | None) -> None:
    """Join several processes that train together; call this before any computation.

    Args:
        coordinator: HOST:PORT of process 0. If empty, the cluster is asked (SLURM, TPU pods and
            others that JAX knows); without a cluster this process stays alone.
        num_processes: the number of processes.
        process_id: the number of this process, from 0.

    Raises:
        GlowError: the others cannot be reached.
    """
    # JAX would catch SIGTERM and drop it. Until training handles it, it should end the process.
    jax.config.update("jax_enable_preemption_service", False)
    wanted = _wanted(coordinator, num_processes, process_id)
    if wanted is None:
        return
    try:
        with _giving_up():
            jax.distributed.initialize(
                heartbeat_timeout_seconds=_SILENCE_SECONDS,
                initialization_timeout=2 * _JOINING_SECONDS,
                **wanted,
            )
    except ValueError:  # JAX knows of no cluster
        if coordinator:
            raise
    except RuntimeError as error:
        # A program that has already computed something before this call is not part of a cluster.
        if coordinator or "must be called before" not in str(error):
            raise GlowError(
                f"The other processes of this run cannot be joined"
                f"{' at ' + coordinator if coordinator else ''}: {str(error).splitlines()[0]}"
            ) from error


class _Wanted(TypedDict, total=False):
    """What JAX is told instead of letting it find out."""

    coordinator_address: str
    num_processes: int
    process_id: int | None
    local_device_ids: list[int]
    cluster_detection_method: str


def _wanted(coordinator: str, num_processes: int, process_id: int | None) -> _Wanted | None:
    """What to join, having said whom this process waits for; None if it is alone."""
    if coordinator:
        _say(f"waiting for all {num_processes} processes of {coordinator}")
        return {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
            "cluster_detection_method": "deactivate",
        }
    step = slurm_step()
    if step is None:
        return {}
    if step.tasks == 1:  # JAX would leave it only one of the node's GPUs
        return None
    if step.task == 0:
        _say(
            f"waiting for all {step.tasks} tasks of SLURM job {step.job}; to train alone, "
            "start `env -u SLURM_JOB_ID python ...`"
        )
    wanted: _Wanted = {"num_processes": step.tasks}
    if step.own_devices and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
        wanted["local_device_ids"] = []  # all
    return wanted


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _giving_up() -> Iterator[None]:
    """End this process if the block takes too long, before JAX aborts it."""

    def give_up() -> None:
        _say(
            f"error: The other processes of this run have not come within {_JOINING_SECONDS} s: "
            "start all of them at about the same time."
        )
        os._exit(2)  # the main thread waits in JAX

    timer = threading.Timer(_JOINING_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def has_joined_processes() -> bool:
    """Whether `join_processes` found other processes."""
    return jax.distributed.is_initialized()


def is_main_process() -> bool:
    """Whether this is the process that writes logs and pictures."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether there is only one process."""
    return jax.process_count() == 1


@contextlib.contextmanager
def losing_processes() -> Iterator[None]:
    """Replace JAX's error after the loss of another process by a `GlowError`.

    Raises:
        GlowError: another process was lost.
    """
    try:
        yield
    except GlowError:
        raise
    except (RuntimeError, ValueError) as error:  # Orbax re-raises some of JAX's errors
        if is_alone() or not _LOST.search(str(error)):
            raise
        raise GlowError(
            f"Process {jax.process_index()} has lost another process of this run: all of them stop."
            " Start them all again with --resume."
        ) from error


def leave(status: int) -> NoReturn:
    """End this process; end it at once if other processes have joined, which should end too."""
    if has_joined_processes():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # sys.exit would wait for the others, and they for this one
    sys.exit(status)


def wait_for_processes(place: str) -> None:
    """Return once every process has called this from the same `place`."""
    if not is_alone():
        multihost_utils.sync_global_devices(place)


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Run the `with` block in the main process first, then in the others."""
    if not is_main_process():
        wait_for_processes("main process first")
    yield
    if is_main_process():
        wait_for_processes("main process first")


def of_main_process(tree: _T) -> _T:
    """Return the main process's tree in every process."""
    return tree if is_alone() else multihost_utils.broadcast_one_to_all(tree)


def same_in_all_processes(number: int) -> bool:
    """Whether every process calls this with the same number; it must be below 2^32."""
    if is_alone():
        return True
    return len(np.unique(multihost_utils.process_allgather(np.uint32(number)))) == 1


def sum_over_processes(array: np.ndarray) -> np.ndarray:
    """The sum of float64 arrays over all processes."""
    if is_alone():
        return array
    # Sent as pairs of integers, because JAX would round float64 to float32.
    gathered = multihost_utils.process_allgather(np.ascontiguousarray(array).view(np.uint32))
    return np.asarray(gathered).view(np.float64).sum(axis=0)


def as_global(tree: _T) -> _T:
    """Turn a tree that is equal in every process into arrays shared by all processes."""
    firsts = np.array([jax.local_devices(process)[0] for process in range(jax.process_count())])
    replicated = NamedSharding(Mesh(firsts, "processes"), PartitionSpec())

    def share(leaf: jax.typing.ArrayLike) -> jax.Array:
        local = jax.device_put(leaf, jax.local_devices()[0])
        return jax.make_array_from_single_device_arrays(local.shape, replicated, [local])

    return jax.tree.map(share, tree)
