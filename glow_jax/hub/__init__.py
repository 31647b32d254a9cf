"""Runs wherever they lie: run folders, model folders, and models on the Hugging Face Hub."""

from glow_jax.hub.model_folder import (
    PublishedRun,
    Weights,
    is_model_folder,
    may_be_replaced,
    values_for,
)
from glow_jax.hub.run_folder import save_run
from glow_jax.hub.sources import (
    load,
    load_from,
    load_run,
    model_name,
    origin_of,
    read_config,
)
from glow_jax.hub.weights import in_a_file

__all__ = [
    "PublishedRun",
    "Weights",
    "in_a_file",
    "is_model_folder",
    "load",
    "load_from",
    "load_run",
    "may_be_replaced",
    "model_name",
    "origin_of",
    "read_config",
    "save_run",
    "values_for",
]
