"""`license.json`: the licence of weights, where the model folder that a run was made of states one.

A licence is named by an identifier of the Hugging Face Hub, such as mit.
"""

import re
from pathlib import Path

from glow_jax.errors import GlowError, shown
from glow_jax.files import write_json
from glow_jax.runs.inside import read_object

LICENSE = "license.json"


def check_license(license: str) -> None:
    """Refuse what can be no identifier of a licence.

    Raises:
        GlowError: it has other characters, or is too long.
    """
    if re.fullmatch("[a-z0-9][a-z0-9.-]{0,60}", license) is None:
        raise GlowError(
            f"license is {shown(license)}; give an identifier of the hub's, such as mit or other."
        )


def write_license(folder: Path, license: str) -> None:
    """Write `license.json` of a run folder."""
    write_json(folder / LICENSE, {"license": license})


def read_license(folder: Path) -> str | None:
    """What `write_license` wrote; None if nothing was.

    Raises:
        GlowError: the file is damaged, or no regular file.
    """
    path = folder / LICENSE
    values = read_object(path)
    if values is None:
        return None
    license = values.get("license")
    if not isinstance(license, str):
        raise GlowError(f"{path} is damaged: it has no license; remove it to go on without it.")
    check_license(license)
    return license
