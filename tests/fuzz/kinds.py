"""The kinds of cases."""

import importlib

from .case import Maker

KINDS = (
    *("checkpoints", "openai", "run_folders", "model_folders"),
    *("arrays", "pictures", "command_lines"),
)


def maker_of(kind: str) -> Maker:
    """What makes the cases of a kind; its module is imported when it is wanted."""
    return importlib.import_module(f"{__package__}.{kind}").make
