"""Run folders: only this package opens their files."""

from glow_jax.runs.data import RunData, read_data, write_data
from glow_jax.runs.directions import Direction, read_directions, write_direction
from glow_jax.runs.folder import (
    WhichStep,
    check_folder,
    make_folder,
    set_aside_after,
    whole_steps,
)
from glow_jax.runs.hparams import read_config, write_config
from glow_jax.runs.inside import check_no_link, set_aside
from glow_jax.runs.license import read_license, write_license
from glow_jax.runs.load import load_optimizer_state, load_run
from glow_jax.runs.loaded import LoadedRun
from glow_jax.runs.lock import check_system, locked, locked_beside
from glow_jax.runs.metrics import (
    append_metrics,
    keep_metrics,
    mend_metrics,
    read_metrics,
)
from glow_jax.runs.results import read_results, write_results
from glow_jax.runs.save import CheckpointWriter, save_weights
from glow_jax.runs.tracking import tracking_id

__all__ = [
    "CheckpointWriter",
    "Direction",
    "LoadedRun",
    "RunData",
    "WhichStep",
    "append_metrics",
    "check_folder",
    "check_no_link",
    "check_system",
    "keep_metrics",
    "load_optimizer_state",
    "load_run",
    "locked",
    "locked_beside",
    "make_folder",
    "mend_metrics",
    "read_config",
    "read_data",
    "read_directions",
    "read_license",
    "read_metrics",
    "read_results",
    "save_weights",
    "set_aside",
    "set_aside_after",
    "tracking_id",
    "whole_steps",
    "write_config",
    "write_data",
    "write_direction",
    "write_license",
    "write_results",
]
