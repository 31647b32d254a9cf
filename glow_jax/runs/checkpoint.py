"""Run folders: `hparams.json`, and checkpoints by Orbax that are complete and undamaged.

    RUN/hparams.json                    the configuration (`glow_jax.config`)
    RUN/checkpoints/STEP/model          parameters and untrained state
    RUN/checkpoints/STEP/average        averaged parameters, where --ema_decay is on
    RUN/checkpoints/STEP/optimizer      the optimizer's state
    RUN/checkpoints/STEP/progress       where training stands
    RUN/checkpoints/STEP/validation.json    bits/dim on the validation split, once that is known
    RUN/checkpoints/STEP/sha256.json    digests of all these files, written last

A step counts only once its digests are there, and loads only if they still hold. Where several
processes train, they share the folder: all take part in saving, and the first writes the digests.
"""

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from flax import nnx

from glow_jax.config import Config, ModelConfig, from_json, to_json
from glow_jax.devices.parallel import (
    as_global,
    is_alone,
    is_main_process,
    losing_processes,
    wait_for_processes,
)
from glow_jax.errors import GlowError
from glow_jax.files import unused, write_json
from glow_jax.model import Glow, Parts, computing, put_together, take_apart

HPARAMS = "hparams.json"
_CHECKPOINTS = "checkpoints"
_DIGESTS = "sha256.json"
_VALIDATION = "validation.json"

Step = int | Literal["best"] | None

# Orbax reports every save and restore through absl, and every error again in each of its threads;
# what a user must know raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)
# What a checkpoint takes beside its arrays.
_OVERHEAD_BYTES = 256 * 1024


@dataclass(frozen=True)
class LoadedRun:
    """A checkpoint of a run folder, as `load_run` returns it.

    Attributes:
        config: the run's configuration.
        step: the number of updates behind the checkpoint.
        model: the model as trained.
        average: the model with averaged parameters, if the run keeps them.
        has_optimizer: whether `load_optimizer_state` finds one.
        progress: what the training loop noted down.
    """

    config: Config
    step: int
    model: Glow
    average: Glow | None
    has_optimizer: bool
    progress: dict[str, Any]

    @property
    def best_model(self) -> Glow:
        """The model to evaluate and sample with: the average where there is one."""
        return self.average or self.model


def load(folder: str | Path, step: Step = None) -> Glow:
    """Load the model of a run folder.

    Args:
        folder: what `train.py` or `convert/from_torch.py` wrote.
        step: a step's number, "best" for the best on the validation split, None for the newest.

    Returns:
        The model, with its averaged parameters where the run keeps them; it computes in the type
        that the run was trained in.

    Raises:
        GlowError: no such folder or step, a file is damaged, or the checkpoint does not match
            `hparams.json`.
    """
    return load_run(folder, step).best_model


def load_run(folder: str | Path, step: Step = None) -> LoadedRun:
    """Load everything of a run folder's checkpoint but the optimizer; as `load`."""
    folder = Path(folder)
    config = read_config(folder)
    number = _choose_step(folder, step)
    _verify(folder, number)
    parts = abstract_parts(config.model)
    with _reader(folder) as manager:
        items = manager.item_metadata(number)
        saved = {"params": parts.params, "buffers": parts.buffers}
        target = {name: nnx.to_pure_dict(state) for name, state in saved.items()}
        _check_match(folder, number, target, items["model"].tree)
        wanted = {
            "model": ocp.args.StandardRestore(_on_device(target)),
            "progress": ocp.args.JsonRestore(),
        }
        if "average" in items:
            wanted["average"] = ocp.args.StandardRestore(_on_device(target["params"]))
        restored = manager.restore(number, args=ocp.args.Composite(**wanted))
    buffers = _fill(parts.buffers, restored["model"]["buffers"])

    def build(values: dict) -> Glow:
        model = put_together(parts.graph, _fill(parts.params, values), buffers)
        return computing(model, dtype=config.training.dtype)

    return LoadedRun(
        config=config,
        step=number,
        model=build(restored["model"]["params"]),
        average=build(restored["average"]) if "average" in items else None,
        has_optimizer="optimizer" in items,
        progress=restored["progress"],
    )


def load_optimizer_state(folder: str | Path, target: Any, step: Step = None) -> Any:
    """Load the optimizer's state of a checkpoint.

    Args:
        folder: the run folder.
        target: a state of the same optimizer for the same model (arrays or their shapes).
        step: as for `load`.

    Raises:
        GlowError: as for `load`, or the checkpoint holds no state of such an optimizer.
    """
    folder = Path(folder)
    number = _choose_step(folder, step)
    _verify(folder, number)
    with _reader(folder) as manager:
        if "optimizer" not in manager.item_metadata(number):
            raise GlowError(f"Step {number} of {folder} was saved without an optimizer's state.")
        args = ocp.args.Composite(optimizer=ocp.args.StandardRestore(_on_device(_plain(target))))
        try:
            restored = manager.restore(number, args=args)["optimizer"]
        except (ValueError, KeyError, TypeError) as error:
            raise GlowError(
                f"The optimizer's state in step {number} of {folder} is of another optimizer or "
                "model than this run's."
            ) from error
    paths, structure = jax.tree_util.tree_flatten_with_path(target)
    return jax.tree.unflatten(structure, [restored[_path_name(path)] for path, _ in paths])


def read_config(folder: Path) -> Config:
    """Read `hparams.json` of a run folder.

    Raises:
        GlowError: it is missing or not valid.
    """
    path = folder / HPARAMS
    if not path.is_file():
        raise GlowError(f"{folder} is no run folder: it has no {HPARAMS}.")
    try:
        return from_json(json.loads(path.read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GlowError(f"{path} is not valid JSON: {error}.") from error
    except GlowError as error:
        raise GlowError(f"{path} is not a configuration of glow_jax: {error}") from error


def write_config(folder: Path, config: Config) -> None:
    """Write `hparams.json` into a run folder, making the folder if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / HPARAMS, to_json(config))


def save_weights(
    folder: str | Path, config: Config, model: Glow, *, optimizer_state: Any = None, step: int = 0
) -> None:
    """Make a new run folder of one checkpoint, as the converter does.

    Raises:
        GlowError: the folder exists and is not empty.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise GlowError(f"{folder} is not empty; give another output folder.")
    write_config(folder, config)
    with CheckpointWriter(folder, keep_best=False) as writer:
        writer.save(step, take_apart(model), optimizer_state=optimizer_state)


class CheckpointWriter:
    """Saves checkpoints of a run: keeps the newest two, and the best on the validation split.

    Saving goes on beside training: `save` returns once the arrays have been copied.
    """

    def __init__(self, folder: Path, *, keep_best: bool):
        """Open the run folder for writing; saves that were never finished go to RUN/set_aside.

        Args:
            folder: the run folder.
            keep_best: keep the step with the lowest validation bits/dim, too.
        """
        self._folder = folder
        self._keep_best = keep_best
        self._sealing: threading.Thread | None = None
        self._failure: GlowError | None = None
        self._last = 0
        if is_main_process():
            _set_aside(folder, lambda step: not (_step_folder(folder, step) / _DIGESTS).exists())
        wait_for_processes("cleared unfinished checkpoints")
        self._manager = ocp.CheckpointManager(
            (folder / _CHECKPOINTS).absolute(),
            options=ocp.CheckpointManagerOptions(cleanup_tmp_directories=True),
        )

    def __enter__(self) -> "CheckpointWriter":
        """For use in a `with` statement."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish what is being saved."""
        if kind is not None and not is_alone():
            return  # the others may be gone, and saving would wait for them
        self._join()
        if self._failure is None:  # else the manager would only raise it again
            self._manager.close()
        if kind is None:
            self.raise_failure()

    def save(
        self,
        step: int,
        parts: Parts,
        *,
        average: nnx.State | None = None,
        optimizer_state: Any = None,
        progress: Mapping[str, Any] | None = None,
        validation_bits_per_dim: float | None = None,
    ) -> None:
        """Start to save one step; it counts from the moment its digests are written.

        A step that is there already is what it would be, but for its validation score.

        Raises:
            GlowError: it cannot be written, or an earlier one could not.
        """
        self.wait()
        if step in self._manager.all_steps():
            if is_main_process():
                self._write_digests(step, validation_bits_per_dim)
            return
        self._last = step
        model = {
            "params": nnx.to_pure_dict(parts.params),
            "buffers": nnx.to_pure_dict(parts.buffers),
        }
        items: dict[str, Any] = {
            "model": ocp.args.StandardSave(as_global(model)),
            "progress": ocp.args.JsonSave(dict(progress or {})),
        }
        if average is not None:
            items["average"] = ocp.args.StandardSave(as_global(nnx.to_pure_dict(average)))
        if optimizer_state is not None:
            items["optimizer"] = ocp.args.StandardSave(as_global(_plain(optimizer_state)))
        try:
            # Asked first, because Orbax's threads print pages about a disk that fills up.
            _check_space(self._folder, (model, average, optimizer_state))
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
            GlowError: something could not be.
        """
        self._join()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise the `GlowError` of a save that went wrong since, if any."""
        if self._failure is not None:
            raise self._failure

    def _join(self) -> None:
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None
        elif self._failure is None:  # only the main process seals, but all of them save
            self._finish(self._last)

    def _seal(self, step: int, bits_per_dim: float | None) -> None:
        """Once Orbax has finished, write the digests, and only then remove older steps."""
        try:
            self._finish(step)
            if self._failure is None:
                self._write_digests(step, bits_per_dim)
                self._remove_old()
        except Exception as error:  # a thread's errors are nobody's: all go to the training loop
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
        directory = _step_folder(self._folder, step)
        known = _read_digests(directory) if (directory / _DIGESTS).exists() else {}
        if _VALIDATION in known:  # the same state has the same score, but for rounding
            return
        if bits_per_dim is not None and math.isfinite(bits_per_dim):
            write_json(directory / _VALIDATION, {"bits_per_dim": bits_per_dim})
        write_json(directory / _DIGESTS, _digests(directory, known))

    def _remove_old(self) -> None:
        steps = whole_steps(self._folder)
        kept = set(steps[-2:])
        best = min(steps, key=lambda step: _validation(self._folder, step))
        if self._keep_best and math.isfinite(_validation(self._folder, best)):
            kept.add(best)
        for step in set(steps) - kept:
            directory = _step_folder(self._folder, step)
            (directory / _DIGESTS).unlink()  # first: half a step must not count
            shutil.rmtree(directory)

    def _cannot_save(self, step: int, error: Exception) -> GlowError:
        reason = error.strerror if isinstance(error, OSError) else None
        if reason is None:
            known = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)]
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            reason = next((text for text in known if text in str(error)), first_line)
        whole = whole_steps(self._folder)
        rest = f"; the newest whole checkpoint is step {whole[-1]}" if whole else ""
        return GlowError(f"Step {step} cannot be saved in {self._folder}: {reason}{rest}.")


def whole_steps(folder: Path) -> list[int]:
    """The steps of a run folder whose saving was finished, oldest first."""
    directories = (folder / _CHECKPOINTS).glob(f"*/{_DIGESTS}")
    return sorted(int(path.parent.name) for path in directories if path.parent.name.isdigit())


def set_aside_after(folder: Path, step: int) -> None:
    """Move the checkpoints after `step` to RUN/set_aside, so that a run can go on from `step`."""
    _set_aside(folder, lambda number: number > step)


def _set_aside(folder: Path, chosen: Callable[[int], bool]) -> None:
    for path in sorted((folder / _CHECKPOINTS).glob("*")):
        if path.name.isdigit() and chosen(int(path.name)):
            aside = unused(folder / "set_aside" / path.name)
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)


def _choose_step(folder: Path, step: Step) -> int:
    steps = whole_steps(folder)
    if not steps:
        raise GlowError(f"{folder} has no checkpoint.")
    if step is None:
        return steps[-1]
    if step == "best":
        best = min(steps, key=lambda number: _validation(folder, number))
        if _validation(folder, best) == math.inf:
            raise GlowError(f"{folder} has no best step: it was trained without --validation.")
        return best
    if step not in steps:
        raise GlowError(f"{folder} has no step {step}; it has {', '.join(map(str, steps))}.")
    return step


def _check_space(folder: Path, trees: Any) -> None:
    """Raise `OSError` unless the disk has room for arrays."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees)) + _OVERHEAD_BYTES
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _validation(folder: Path, step: int) -> float:
    """A step's bits/dim on the validation split, infinite where it is not known."""
    directory = _step_folder(folder, step)
    # A score without a digest is one whose writing was cut short.
    if _VALIDATION not in _read_digests(directory):
        return math.inf
    try:
        return json.loads((directory / _VALIDATION).read_text())["bits_per_dim"]
    except (OSError, ValueError, KeyError) as error:
        raise GlowError(f"Checkpoint file {directory / _VALIDATION} is damaged.") from error


def _reader(folder: Path) -> ocp.CheckpointManager:
    directory = (folder / _CHECKPOINTS).absolute()
    options = ocp.CheckpointManagerOptions(read_only=True)
    arrays = ("model", "average", "optimizer")
    handlers = {name: ocp.StandardCheckpointHandler() for name in arrays}
    return ocp.CheckpointManager(
        directory,
        options=options,
        item_handlers={
            **handlers,
            "progress": ocp.JsonCheckpointHandler(),
        },
    )


def _step_folder(folder: Path, step: int) -> Path:
    return folder / _CHECKPOINTS / str(step)


def _digests(directory: Path, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The SHA-256 of every file of a step; those that are known already are not read again."""
    digests = dict(known)
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        if name not in {_DIGESTS, *known}:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _read_digests(directory: Path) -> dict[str, str]:
    try:
        return json.loads((directory / _DIGESTS).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise GlowError(f"Checkpoint file {directory / _DIGESTS} is damaged.") from None


def _verify(folder: Path, step: int) -> None:
    directory = _step_folder(folder, step)
    expected = _read_digests(directory)
    found = _digests(directory)
    for name in sorted(expected):
        if found.get(name) != expected[name]:
            fault = "is missing" if name not in found else "is damaged: its SHA-256 differs"
            others = [str(other) for other in whole_steps(folder) if other != step]
            advice = f"; give --step {' or --step '.join(others)} to use another" if others else ""
            raise GlowError(f"Checkpoint file {directory / name} {fault}{advice}.")


def abstract_parts(config: ModelConfig) -> Parts:
    """The pieces of a model as shapes and dtypes, without computing anything."""
    return take_apart(nnx.eval_shape(lambda: Glow(config, rngs=nnx.Rngs(0))))


def _fill(state: nnx.State, values: dict) -> nnx.State:
    filled = jax.tree.map(lambda leaf: leaf, state)
    nnx.replace_by_pure_dict(filled, values)
    return filled


def _plain(state: Any) -> Any:
    """An optimizer's state as one flat dict, each array under the path that leads to it."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    return {_path_name(path): leaf for path, leaf in paths}


def _on_device(target: Any) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), target
    )


def _check_match(folder: Path, step: int, target: Any, saved: Any) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        paths, _ = jax.tree_util.tree_flatten_with_path(tree)
        return {_path_name(path): tuple(leaf.shape) for path, leaf in paths}

    wanted, found = shapes(target), shapes(saved)
    for name in sorted(set(wanted) | set(found)):
        if wanted.get(name) != found.get(name):
            raise GlowError(
                f"{folder / HPARAMS} does not match the checkpoint of step {step}: {name} is "
                f"{found.get(name, 'absent')} there and {wanted.get(name, 'absent')} by {HPARAMS}."
            )


def _path_name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
