"""Publishing a run: a model folder with its card, written here or on the Hugging Face Hub."""

from glow_jax.publishing.card import UNKNOWN_LICENSE
from glow_jax.publishing.contents import (
    PUBLISHED_FILES,
    Contents,
    contents_of,
    contents_of_run,
    license_in,
    states_results,
    write_contents,
)

__all__ = [
    "PUBLISHED_FILES",
    "UNKNOWN_LICENSE",
    "Contents",
    "contents_of",
    "contents_of_run",
    "license_in",
    "states_results",
    "write_contents",
]
