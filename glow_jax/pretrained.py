"""The methods by which a model is shared: those of huggingface_hub's `ModelHubMixin`.

A model knows neither files nor the hub, so each method is carried out by another package, which is
imported when the method is called. `ModelHubMixin` itself is no base of a model: its import takes a
third of a second, and it sets attributes on the models it makes, which Flax would take for parts of
their structure.
"""

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

if TYPE_CHECKING:
    from glow_jax.model import Glow


class PushOptions(TypedDict, total=False):
    """What `ModelHubMixin.push_to_hub` takes besides the name.

    Attributes:
        commit_message: that of the upload.
        private: whether a repository that is made now is private.
        token: that of the login by default.
        branch: main by default.
        create_pr: propose the upload instead of making it.
    """

    commit_message: str
    private: bool | None
    token: str | None
    branch: str | None
    create_pr: bool | None


class Pretrained:
    """A base of `Glow`: saving a model for others, and loading theirs."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> "Glow":
        """Load a trained model; `glow_jax.load` with what the hub is to be told.

        Args:
            pretrained_model_name_or_path: a model folder, a run folder, or a model's name on the
                Hugging Face Hub, user/name or user/name@revision.
            force_download: fetch the files again, though they are in the cache.
            token: for private models; None for that of the login.
            cache_dir: where downloads are kept; None for the hub's own cache.
            local_files_only: take only what is in the cache.
            revision: a branch, a tag or a commit.

        Returns:
            A plain `Glow`, of subclasses too: nothing says how one is made of a configuration.

        Raises:
            GlowError: there is no such folder or name, the hub cannot be reached, or a file is
                damaged.
        """
        from glow_jax.hub import load_from
        from glow_jax.hub.download import Access

        access = Access(
            force_download=force_download,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        return load_from(pretrained_model_name_or_path, access=access)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        license: str | None = None,
        **push_to_hub_kwargs: Unpack[PushOptions],
    ) -> str | None:
        """Write a model folder: `config.json`, `model.safetensors`, and a model card.

        If the model was loaded from a run and still has its arrays, the folder states the run's
        data, bits/dim and command, and whether the parameters are averaged ones.

        Args:
            save_directory: the folder. Files of an earlier model there are replaced.
            repo_id: the model's name on the hub, as for `push_to_hub`; by default that of the
                folder.
            push_to_hub: upload the folder, too.
            license: that of the weights, by an identifier of the hub's; None for that of the model
                folder that the model was loaded from, or else "unknown".
            push_to_hub_kwargs: see `PushOptions`.

        Returns:
            The address of the upload, or None.

        Raises:
            GlowError: the model is not in float32, a file that is no earlier model's would be
                replaced, or the hub does not take it.
        """
        from glow_jax.publishing.hub_model import save

        return save(
            cast("Glow", self),
            Path(save_directory),
            repo_id=repo_id,
            push_to_hub=push_to_hub,
            license=license,
            **push_to_hub_kwargs,
        )

    def push_to_hub(
        self, repo_id: str, *, license: str | None = None, **push_to_hub_kwargs: Unpack[PushOptions]
    ) -> str:
        """Upload the model folder that `save_pretrained` would write.

        Args:
            repo_id: user/name, or your own by the name alone; the repository is made if there is
                none.
            license: that of the weights, by an identifier of the hub's; None for that of the model
                folder that the model was loaded from, or else "unknown".
            push_to_hub_kwargs: see `PushOptions`.

        Returns:
            The address of the upload.

        Raises:
            GlowError: the model is not in float32, or the hub does not take it.
        """
        from glow_jax.publishing.hub_model import push

        return push(cast("Glow", self), repo_id, license=license, **push_to_hub_kwargs)
