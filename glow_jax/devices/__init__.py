"""Devices, processes and compiler options: only this package knows how many there are."""

from glow_jax.devices.compilation import keep_compiled_programs, run_once
from glow_jax.devices.pmap import (
    Devices,
    SharedStep,
    make_virtual_devices,
    mean_over_devices,
    use_cpu,
)
from glow_jax.devices.processes import (
    as_global,
    has_joined_processes,
    is_alone,
    is_main_process,
    join_processes,
    leave,
    losing_processes,
    main_process_first,
    of_main_process,
    same_in_all_processes,
    sum_over_processes,
    wait_for_processes,
)

__all__ = [
    "Devices",
    "SharedStep",
    "as_global",
    "has_joined_processes",
    "is_alone",
    "is_main_process",
    "join_processes",
    "keep_compiled_programs",
    "leave",
    "losing_processes",
    "main_process_first",
    "make_virtual_devices",
    "mean_over_devices",
    "of_main_process",
    "run_once",
    "same_in_all_processes",
    "sum_over_processes",
    "use_cpu",
    "wait_for_processes",
]
