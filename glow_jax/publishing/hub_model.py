"""A model folder as huggingface_hub's `ModelHubMixin` saves and uploads one.

The mixin serves for uploading only. Loading does not go through it: it would fetch files before
their sizes are known. Saving does not: it would remove `config.json` first, and if it were
interrupted then, nobody could tell whose the folder is.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

from huggingface_hub import HfApi, ModelHubMixin, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from glow_jax.errors import GlowError, first_line
from glow_jax.hub import may_be_replaced
from glow_jax.hub.download import Access, Name, fetch
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
    _check_options("save_pretrained", push_to_hub_kwargs)
    name = repo_id or str(folder)
    if push_to_hub:
        name = full_name(repo_id or folder.name, push_to_hub_kwargs.get("token"))
    contents = contents_of(model, name=name, license=license)
    write_contents(folder, contents)
    return push_contents(contents, name, **push_to_hub_kwargs) if push_to_hub else None


def _check_options(method: str, options: PushOptions) -> None:
    """Refuse unknown keywords as Python does, which takes any where a type lists them.

    Raises:
        TypeError: names one.
    """
    for name in options:
        if name not in PushOptions.__optional_keys__:
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")


def _check_free(folder: Path) -> None:
    """Refuse to replace files of others: a project's README, the model of another program.

    Raises:
        GlowError: names one.
    """
    if may_be_replaced(folder):
        return
    for name in PUBLISHED_FILES:
        if os.path.lexists(folder / name):
            raise GlowError(
                f"{folder} is no model folder of glow-jax, and its {name} would be replaced: give "
                "another folder."
            )


def push(
    model: Glow, repo_id: str, *, license: str | None, **push_to_hub_kwargs: Unpack[PushOptions]
) -> str:
    """Carry out `Glow.push_to_hub`."""
    _check_options("push_to_hub", push_to_hub_kwargs)
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

    Files of an earlier model there that this one has not are removed.

    Raises:
        GlowError: the hub does not take it, or cannot be reached.
    """
    token, branch = push_to_hub_kwargs.get("token"), push_to_hub_kwargs.get("branch")
    old = _files_of_earlier(repo_id, token, branch)
    stale = [name for name in old if name not in contents]
    with _one_sentence(repo_id):
        return HubModel(contents).push_to_hub(
            repo_id, delete_patterns=stale or None, **push_to_hub_kwargs
        )


def _files_of_earlier(repo_id: str, token: str | None, branch: str | None) -> Sequence[str]:
    """The files of a model of this program on the hub; none of another program's."""
    try:
        folder = fetch(Name(repo_id, branch), Access(token=token), weights=False)
    except GlowError:
        return ()
    return PUBLISHED_FILES if may_be_replaced(folder) else ()


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Say in one sentence why a model cannot be uploaded.

    Raises:
        GlowError: it cannot.
    """
    try:
        yield
    except TypeError:  # no fault of the hub's
        raise
    except Exception as error:
        advice = ""
        if _is_about_token(error):
            advice = (
                "; uploading needs a token that may write, which 'hf auth login' or HF_TOKEN gives"
            )
        raise GlowError(
            f"{name} cannot be uploaded to {constants.ENDPOINT}: {first_line(error)}{advice}."
        ) from error


def _is_about_token(error: Exception) -> bool:
    """Whether there is no token, or the hub does not let its user do this."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (401, 403)
    return isinstance(error, LocalTokenNotFoundError)
