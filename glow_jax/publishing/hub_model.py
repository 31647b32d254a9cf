"""A model folder as huggingface_hub's `ModelHubMixin` saves and uploads one.

The mixin serves for writing only. Loading does not go through it: it would fetch files before their
sizes are known.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

from huggingface_hub import HfApi, ModelHubMixin, constants

from glow_jax.errors import GlowError, first_line
from glow_jax.hub import is_model_folder
from glow_jax.model import Glow
from glow_jax.pretrained import PushOptions
from glow_jax.publishing.contents import (
    PUBLISHED_FILES,
    Contents,
    contents_of,
    write_contents,
)


class HubModel(ModelHubMixin, library_name="glow-jax"):
    """The files of a model folder, with the methods of the mixin."""

    def __init__(self, contents: Contents):
        """Take the files."""
        self._contents = contents

    def _save_pretrained(self, save_directory: Path) -> None:
        write_contents(save_directory, self._contents)


def save(
    model: Glow,
    folder: Path,
    *,
    repo_id: str | None,
    push_to_hub: bool,
    license: str | None,
    **push_to_hub_kwargs: Unpack[PushOptions],
) -> str | None:
    """Carry out `Glow.save_pretrained`."""
    _check_free(folder)
    name = repo_id or str(folder)
    if push_to_hub:
        name = full_name(repo_id or folder.name, push_to_hub_kwargs.get("token"))
    contents = contents_of(model, name=name, license=license)
    HubModel(contents).save_pretrained(folder)
    return push_contents(contents, name, **push_to_hub_kwargs) if push_to_hub else None


def _check_free(folder: Path) -> None:
    """Refuse to replace files that are no model folder's, such as the README of a project.

    Raises:
        GlowError: names one.
    """
    if is_model_folder(folder):
        return
    for name in PUBLISHED_FILES:
        if os.path.lexists(folder / name):
            raise GlowError(
                f"{folder} is no model folder, and its {name} would be replaced: give another "
                "folder."
            )


def push(
    model: Glow, repo_id: str, *, license: str | None, **push_to_hub_kwargs: Unpack[PushOptions]
) -> str:
    """Carry out `Glow.push_to_hub`."""
    name = full_name(repo_id, push_to_hub_kwargs.get("token"))
    contents = contents_of(model, name=name, license=license)
    return push_contents(contents, name, **push_to_hub_kwargs)


def full_name(repo_id: str, token: str | None = None) -> str:
    """A repository's name as user/name, by which a card tells how to load it.

    Args:
        repo_id: user/name, or a name alone, which is the token's user's own.
        token: that of the login by default.

    Raises:
        GlowError: there is no token, or the hub cannot be reached.
    """
    if "/" in repo_id:
        return repo_id
    with _one_sentence(repo_id):
        return f"{HfApi(token=token).whoami()['name']}/{repo_id}"


def push_contents(
    contents: Contents, repo_id: str, **push_to_hub_kwargs: Unpack[PushOptions]
) -> str:
    """Upload a model folder; return the address.

    Raises:
        GlowError: the hub does not take it, or cannot be reached.
    """
    with _one_sentence(repo_id):
        return HubModel(contents).push_to_hub(repo_id, **push_to_hub_kwargs)


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Say in one sentence why a model cannot be uploaded.

    Raises:
        GlowError: it cannot.
    """
    try:
        yield
    except Exception as error:
        raise GlowError(
            f"{name} cannot be uploaded to {constants.ENDPOINT}: {first_line(error)}; uploading "
            "needs a token that may write, which 'hf auth login' or HF_TOKEN gives."
        ) from error
