"""What SLURM's variables say about the step that this process belongs to."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A step of a SLURM job, as one of its tasks sees it.

    Attributes:
        job: the number of the job.
        tasks: the number of tasks that were started together.
        task: the number of this task, from 0.
        own_devices: whether this task need not share the GPUs that it sees with another.
    """

    job: str
    tasks: int
    task: int
    own_devices: bool


def slurm_step() -> Step | None:
    """The step of this process; None outside of SLURM, and in the shell of `salloc` or `sbatch`."""
    job, place = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_NODELIST")
    # A shell that is one task may lie in an allocation of several.
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", ""))
    task = os.environ.get("SLURM_PROCID", "")
    nodes = os.environ.get("SLURM_STEP_NUM_NODES", "1")
    numbers = (tasks, task, nodes)
    if not (job and place and all(number.isdecimal() for number in numbers)):
        return None
    return Step(
        job=job,
        tasks=int(tasks),
        task=int(task),
        own_devices=int(tasks) <= int(nodes)
        or "SLURM_GPUS_PER_TASK" in os.environ
        or "," not in os.environ.get("CUDA_VISIBLE_DEVICES", ","),
    )
