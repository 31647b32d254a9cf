"""`tracking.json`: the id by which trackers know a run, so that it goes on where it was."""

import re
import secrets
from pathlib import Path

from glow_jax.config.checks import brief
from glow_jax.errors import GlowError
from glow_jax.files import write_json
from glow_jax.runs.inside import read_json

TRACKING = "tracking.json"


def tracking_id(folder: Path) -> str:
    """The id of a run folder: 8 hexadecimal digits, drawn when it is first asked for.

    Raises:
        GlowError: the file holds something else.
    """
    path = folder / TRACKING
    if not path.exists() and not path.is_symlink():
        write_json(path, {"id": secrets.token_hex(4)})
    values = read_json(path)
    found = values.get("id") if isinstance(values, dict) else None
    if not isinstance(found, str) or re.fullmatch("[0-9a-f]{8}", found) is None:
        raise GlowError(
            f"{path} has the id {brief(found)}, not 8 hexadecimal digits: remove the file, and the "
            "run goes on under a new id."
        )
    return found
