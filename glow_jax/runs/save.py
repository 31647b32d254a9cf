"""Saving checkpoints into a run folder."""

import errno
import math
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import jax
import optax
from flax import nnx

from glow_jax.config import Config
from glow_jax.devices import (
    as_global,
    is_alone,
    is_main_process,
    losing_processes,
    wait_for_processes,
)
from glow_jax.errors import GlowError, first_line
from glow_jax.files import write_json
from glow_jax.model import Glow
from glow_jax.runs.digests import (
    DIGESTS,
    VALIDATION,
    digests_of,
    read_digests,
    write_origin,
)
from glow_jax.runs.folder import (
    CHECKPOINTS,
    best_or_doubtful,
    set_aside_unfinished,
    step_folder,
    whole_steps,
)
from glow_jax.runs.hparams import HPARAMS, read_config, write_config
from glow_jax.runs.load import path_name

# Disk space of a checkpoint besides its arrays.
_OVERHEAD_BYTES = 256 * 1024


def save_weights(
    folder: str | Path,
    config: Config,
    model: Glow,
    *,
    average: Glow | None = None,
    optimizer_state: optax.OptState | None = None,
    step: int = 0,
) -> None:
    """Make a new run folder with one checkpoint; the converter uses this.

    Raises:
        GlowError: the folder exists and is not empty.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise GlowError(f"{folder} is not empty; give another output folder.")
    write_config(folder, config)
    with CheckpointWriter(folder, keep_best=False) as writer:
        writer.save(step, model, average=average, optimizer_state=optimizer_state)


class CheckpointWriter:
    """Saves checkpoints of a run; keeps the newest two, and the best on the validation split.

    Saving runs in the background: `save` returns once the arrays have been copied.
    """

    def __init__(self, folder: Path, *, keep_best: bool):
        """Open the run folder for writing; move unfinished checkpoints to RUN/set_aside.

        Args:
            folder: the run folder.
            keep_best: also keep the step with the lowest validation bits/dim.
        """
        import orbax.checkpoint as ocp  # a third of a second: not at `import glow_jax`

        self._folder = folder
        self._keep_best = keep_best
        self._sealing: threading.Thread | None = None
        self._failure: GlowError | None = None
        self._last = 0
        self._config: Config | None = None
        if is_main_process():
            if (folder / HPARAMS).exists():
                self._config = read_config(folder)
            set_aside_unfinished(folder)
        wait_for_processes("cleared unfinished checkpoints")
        self._manager = ocp.CheckpointManager(
            (folder / CHECKPOINTS).absolute(),
            options=ocp.CheckpointManagerOptions(cleanup_tmp_directories=True),
        )

    def __enter__(self) -> "CheckpointWriter":
        """For use in a `with` statement."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the current save."""
        if kind is not None and not is_alone():
            return  # saving would wait for the others, which may be gone
        self._join()
        if self._failure is None:  # else the manager would only raise it again
            self._manager.close()
        if kind is None:
            self.raise_failure()

    def save(
        self,
        step: int,
        model: Glow,
        *,
        average: Glow | None = None,
        optimizer_state: optax.OptState | None = None,
        progress: Mapping[str, object] | None = None,
        validation_bits_per_dim: float | None = None,
    ) -> None:
        """Start to save one step; it is complete once its digests are written.

        A step that is already there has the same content; only its validation score is added.

        Raises:
            GlowError: this step or an earlier one could not be written.
        """
        import orbax.checkpoint as ocp

        self.wait()
        if step in self._manager.all_steps():
            if is_main_process():
                self._write_digests(step, validation_bits_per_dim)
            return
        self._last = step
        trees = {"model": nnx.to_pure_dict(nnx.state(model))}
        if average is not None:
            trees["average"] = nnx.to_pure_dict(nnx.state(average, nnx.Param))
        if optimizer_state is not None:
            leaves, _ = jax.tree_util.tree_flatten_with_path(optimizer_state)
            trees["optimizer"] = {path_name(path): leaf for path, leaf in leaves}
        items: dict[str, ocp.args.CheckpointArgs] = {
            name: ocp.args.StandardSave(as_global(tree)) for name, tree in trees.items()
        }
        items["progress"] = ocp.args.JsonSave(dict(progress or {}))
        try:
            # Checked first, because Orbax's threads print pages of errors when the disk fills up.
            _check_space(self._folder, trees)
            with losing_processes():
                self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        except (OSError, ValueError, RuntimeError) as error:
            self._failure = self._cannot_save(step, error)
            raise self._failure from error
        if is_main_process():
            self._sealing = threading.Thread(
                target=self._seal, args=(step, validation_bits_per_dim), name=f"seal {step}"
            )
            self._sealing.start()

    def wait(self) -> None:
        """Return once everything is saved.

        Raises:
            GlowError: a step could not be saved.
        """
        self._join()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise the `GlowError` of a failed save, if there is one."""
        if self._failure is not None:
            raise self._failure

    def _join(self) -> None:
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None
        elif self._failure is None:  # only the main process seals, but all processes save
            self._finish(self._last)

    def _seal(self, step: int, bits_per_dim: float | None) -> None:
        """Once Orbax has finished, write the digests, and only then remove older steps."""
        try:
            self._finish(step)
            if self._failure is None:
                self._write_digests(step, bits_per_dim)
                self._remove_old()
        except Exception as error:  # nobody sees errors in a thread: pass them to training
            self._failure = self._cannot_save(step, error)

    def _finish(self, step: int) -> None:
        """Wait for Orbax's part of a save."""
        try:
            with losing_processes():
                self._manager.wait_until_finished()
        except GlowError as error:
            self._failure = error
        except (OSError, ValueError, RuntimeError) as error:
            self._failure = self._cannot_save(step, error)

    def _write_digests(self, step: int, bits_per_dim: float | None) -> None:
        directory = step_folder(self._folder, step)
        is_new = not (directory / DIGESTS).exists()
        known = {} if is_new else read_digests(directory)
        if VALIDATION in known:  # the same state has the same score, up to rounding
            return
        if bits_per_dim is not None and math.isfinite(bits_per_dim):
            write_json(directory / VALIDATION, {"bits_per_dim": bits_per_dim})
        if is_new and self._config is not None:
            write_origin(directory, step, self._config)
        write_json(directory / DIGESTS, digests_of(directory, known))

    def _remove_old(self) -> None:
        steps = whole_steps(self._folder)
        kept = {*steps[-2:], *(best_or_doubtful(self._folder) if self._keep_best else ())}
        for step in set(steps) - kept:
            directory = step_folder(self._folder, step)
            (directory / DIGESTS).unlink()  # first: a half-removed step must not count
            shutil.rmtree(directory)

    def _cannot_save(self, step: int, error: Exception) -> GlowError:
        reason = error.strerror if isinstance(error, OSError) else None
        if reason is None:
            known = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)]
            reason = next((text for text in known if text in str(error)), first_line(error))
        whole = whole_steps(self._folder)
        rest = f"; the newest whole checkpoint is step {whole[-1]}" if whole else ""
        return GlowError(f"Step {step} cannot be saved in {self._folder}: {reason}{rest}.")


def _check_space(folder: Path, trees: Mapping[str, object]) -> None:
    """Raise `OSError` unless the disk has room for the arrays."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _OVERHEAD_BYTES
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
