"""Publishing a run: a model folder with its card, written here or on the Hugging Face Hub."""

from glow_jax.publishing.contents import (
    PUBLISHED_FILES,
    Contents,
    contents_of,
    contents_of_run,
    states_results,
    write_contents,
)

__all__ = [
    "PUBLISHED_FILES",
    "Contents",
    "contents_of",
    "contents_of_run",
    "states_results",
    "write_contents",
]
