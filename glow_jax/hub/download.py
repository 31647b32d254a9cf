"""Models of the Hugging Face Hub: their files come into the hub's own cache, and no others.

Sizes are asked for first. The hub's library is imported when something is fetched.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from glow_jax.errors import GlowError, first_line
from glow_jax.hub.model_folder import CONFIG, LARGEST_MIB, WEIGHTS, describe
from glow_jax.hub.weights import check_memory, most_bytes
from glow_jax.runs.metrics import METRICS


@dataclass(frozen=True)
class Name:
    """A model's name on the hub.

    Attributes:
        repository: user/name.
        revision: a branch, a tag or a commit; None for the newest state.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        """As the user gives it."""
        return self.repository + (f"@{self.revision}" if self.revision else "")

    @property
    def kept_in(self) -> Path:
        """Where results of the model are kept: nobody may write into the cache."""
        return Path("runs") / self.repository.replace("/", "--")


@dataclass(frozen=True)
class Access:
    """How the hub is asked; the names are those of `huggingface_hub`.

    Attributes:
        force_download: fetch the files again, though they are in the cache.
        token: for private models; None for that of the login.
        cache_dir: where downloads are kept; None for the hub's own cache.
        local_files_only: take only what is in the cache.
        revision: a branch, a tag or a commit.
    """

    force_download: bool = False
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    revision: str | None = None


def fetch(name: Name, access: Access, *, weights: bool = True) -> Path:
    """The model folder of a model on the hub, in the hub's cache.

    Args:
        name: the model.
        access: how the hub is asked.
        weights: whether to fetch more than `config.json`.

    Raises:
        GlowError: there is no such model or revision, the hub cannot be reached and the cache does
            not have it, it is no model of glow_jax, or a file is larger than it can be.
    """
    if name.revision and access.revision:
        raise GlowError(f"{name} names a revision, and revision is {access.revision}: give one.")
    revision = name.revision or access.revision
    if not (access.local_files_only or access.force_download or _answers(name, revision, access)):
        access = replace(access, local_files_only=True)
    with _one_sentence(name, revision):
        config = _fetch(name, CONFIG, revision, LARGEST_MIB[CONFIG] * 2**20, access)
    folder = config.parent
    if not weights:
        return folder
    abstract = describe(folder).abstract
    check_memory(str(name), abstract)
    with _one_sentence(name, revision):
        # All files of one state: the name of the folder is that of its commit.
        _fetch(name, WEIGHTS, folder.name, most_bytes(abstract), access)
        with suppress(_NoSuchFileError):
            _fetch(name, METRICS, folder.name, LARGEST_MIB[METRICS] * 2**20, access)
    return folder


def _answers(name: Name, revision: str | None, access: Access) -> bool:
    """Whether the hub answers at all: the library would ask many times, and say so each time."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(
            hf_hub_url(name.repository, CONFIG, revision=revision), token=access.token
        )
    except HfHubHTTPError:
        return True
    except Exception:  # whatever the network raises, and the library where it is switched off
        return False
    return True


class _NoSuchFileError(GlowError):
    """A model has no file of a name."""


def _fetch(name: Name, file: str, revision: str | None, largest: int, access: Access) -> Path:
    """A file in the cache, which is fetched if it is not there.

    Raises:
        GlowError: it is too large, or the model has no such file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    options = {
        "revision": revision,
        "force_download": access.force_download,
        "token": access.token,
        "cache_dir": access.cache_dir,
        "local_files_only": access.local_files_only,
        "library_name": "glow-jax",
    }
    try:
        found = hf_hub_download(name.repository, file, dry_run=True, **options)
        size = found.file_size
        if size is None or size > largest:
            said = "an unknown number of" if size is None else size
            raise GlowError(
                f"{file} of {name} has {said} bytes, and can have at most {largest}: it is "
                "damaged, or belongs to another model."
            )
        return Path(hf_hub_download(name.repository, file, **options))
    except RemoteEntryNotFoundError as error:
        raise _NoSuchFileError(f"{name} is no model of glow_jax: it has no {file}.") from error
    except LocalEntryNotFoundError as error:
        if file != METRICS:
            raise
        raise _NoSuchFileError(f"The cache has no {file} of {name}.") from error


@contextmanager
def _one_sentence(name: Name, revision: str | None) -> Iterator[None]:
    """Say in one sentence why a model cannot be had.

    Raises:
        GlowError: it cannot.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub, here = constants.ENDPOINT, f"There is no folder {name} here"
    try:
        yield
    except GlowError:
        raise
    except GatedRepoError as error:
        raise GlowError(
            f"{name} on {hub} is given only to those who accept its conditions: accept them there, "
            "and log in by 'hf auth login'."
        ) from error
    except RepositoryNotFoundError as error:
        raise GlowError(
            f"{here}, and no model of that name on {hub}; if it is private, log in by 'hf auth "
            "login'."
        ) from error
    except RevisionNotFoundError as error:
        raise GlowError(
            f"{name.repository} on {hub} has no revision {revision}: give a branch, a tag or a "
            "commit of it."
        ) from error
    except LocalEntryNotFoundError as error:
        raise GlowError(
            f"{here}; as a model of {hub} it is not in the cache, and the hub is switched off or "
            "cannot be reached."
        ) from error
    except Exception as error:  # whatever the network, the disk and the hub's library raise
        raise GlowError(
            f"{here}; as a model of {hub} it cannot be fetched: {first_line(error)}."
        ) from error
