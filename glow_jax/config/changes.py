"""Which values a run keeps for all its life, and which a resumed run may change."""

import json

from glow_jax.config.json import to_json
from glow_jax.config.tree import Config

# How long and where a run computes, not what it computes.
MAY_CHANGE = {
    # `evaluation.same_data` sees that another data set holds the same images.
    "data": {
        "class_limit",
        "dataroot",
        "dataset",
        "download",
        "memory_limit",
        "n_workers",
        "picture_limit",
    },
    "training": {"epochs", "eval_batch_size", "memory"},
}
SECTIONS = ("model", "data", "optimizer", "training")


def what_a_run_keeps(config: Config) -> dict[str, dict[str, object]]:
    """The values that no resumed run may change, by section, as they are read from JSON."""
    values = json.loads(json.dumps(to_json(config)))
    return {
        section: {
            name: value
            for name, value in values[section].items()
            if name not in MAY_CHANGE.get(section, ())
        }
        for section in SECTIONS
    }
