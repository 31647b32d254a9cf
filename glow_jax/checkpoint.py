"""Run folders: `hparams.json`, and checkpoints by Orbax that are complete and undamaged.

    RUN/hparams.json                    the configuration (`glow_jax.config`)
    RUN/checkpoints/STEP/model          parameters and untrained state
    RUN/checkpoints/STEP/average        averaged parameters, where --ema_decay is on
    RUN/checkpoints/STEP/optimizer      the optimizer's state
    RUN/checkpoints/STEP/progress       where training stands
    RUN/checkpoints/STEP/sha256.json    digests of all these files, written last

A step counts only once its digests are there, and loads only if they still hold.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from flax import nnx
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
    PreservationPolicy,
)

from glow_jax.config import Config, ModelConfig, from_json, to_json
from glow_jax.errors import GlowError
from glow_jax.files import write_json
from glow_jax.model import Glow, Parts, put_together, take_apart

HPARAMS = "hparams.json"
_CHECKPOINTS = "checkpoints"
_DIGESTS = "sha256.json"
_VALIDATION = "validation_bits_per_dim"

Step = int | Literal["best"] | None

# Orbax reports every save and restore through absl; what a user must know raises.
logging.getLogger("absl").setLevel(logging.ERROR)


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
        The model, with its averaged parameters where the run keeps them.

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
        return put_together(parts.graph, _fill(parts.params, values), buffers)

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
    """Saves checkpoints of a run: keeps the newest two, and the best on the validation split."""

    def __init__(self, folder: Path, *, keep_best: bool):
        """Open the run folder for writing; saves that were never finished are cleared away.

        Args:
            folder: the run folder.
            keep_best: keep the step with the lowest validation bits/dim, too.
        """
        self._folder = folder
        directory = (folder / _CHECKPOINTS).absolute()
        keep: list[PreservationPolicy] = [LatestN(n=2)]
        if keep_best:
            keep.append(BestN(get_metric_fn=_negative_validation, n=1))
        self._manager = ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(keep),
                best_fn=_negative_validation,  # without it Orbax forgets metrics when it closes
                cleanup_tmp_directories=True,
                enable_async_checkpointing=False,
            ),
        )
        for step in set(self._manager.all_steps()) - set(whole_steps(folder)):
            self._manager.delete(step)

    def __enter__(self) -> "CheckpointWriter":
        """For use in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the manager."""
        self._manager.close()

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
        """Save one step; it counts from the moment its digests are written."""
        model = {
            "params": nnx.to_pure_dict(parts.params),
            "buffers": nnx.to_pure_dict(parts.buffers),
        }
        items: dict[str, Any] = {
            "model": ocp.args.StandardSave(model),
            "progress": ocp.args.JsonSave(dict(progress or {})),
        }
        if average is not None:
            items["average"] = ocp.args.StandardSave(nnx.to_pure_dict(average))
        if optimizer_state is not None:
            items["optimizer"] = ocp.args.StandardSave(_plain(optimizer_state))
        score = validation_bits_per_dim
        # A step without metrics would be kept for ever: give it one that is never the best.
        metrics = {_VALIDATION: score if score is not None and math.isfinite(score) else math.inf}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)
        self._manager.wait_until_finished()
        directory = _step_folder(self._folder, step)
        write_json(directory / _DIGESTS, _digests(directory))


def _negative_validation(metrics: Mapping[str, float]) -> float:
    return -metrics[_VALIDATION]


def whole_steps(folder: Path) -> list[int]:
    """The steps of a run folder whose saving was finished, oldest first."""
    directories = (folder / _CHECKPOINTS).glob(f"*/{_DIGESTS}")
    return sorted(int(path.parent.name) for path in directories if path.parent.name.isdigit())


def _choose_step(folder: Path, step: Step) -> int:
    steps = whole_steps(folder)
    if not steps:
        raise GlowError(f"{folder} has no checkpoint.")
    if step is None:
        return steps[-1]
    if step == "best":
        with _reader(folder) as manager:
            scores = {number: _negative_validation(manager.metrics(number)) for number in steps}
        best = max(steps, key=lambda number: scores[number])
        if scores[best] == -math.inf:
            raise GlowError(f"{folder} has no best step: it was trained without --validation.")
        return best
    if step not in steps:
        raise GlowError(f"{folder} has no step {step}; it has {', '.join(map(str, steps))}.")
    return step


def _reader(folder: Path) -> ocp.CheckpointManager:
    directory = (folder / _CHECKPOINTS).absolute()
    options = ocp.CheckpointManagerOptions(read_only=True, best_fn=_negative_validation)
    arrays = ("model", "average", "optimizer")
    handlers = {name: ocp.StandardCheckpointHandler() for name in arrays}
    return ocp.CheckpointManager(
        directory,
        options=options,
        item_handlers={
            **handlers,
            "progress": ocp.JsonCheckpointHandler(),
            "metrics": ocp.JsonCheckpointHandler(),
        },
    )


def _step_folder(folder: Path, step: int) -> Path:
    return folder / _CHECKPOINTS / str(step)


def _digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    digests = {}
    for path in files:
        with path.open("rb") as file:
            name = path.relative_to(directory).as_posix()
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    digests.pop(_DIGESTS, None)
    return digests


def _verify(folder: Path, step: int) -> None:
    directory = _step_folder(folder, step)
    try:
        expected = json.loads((directory / _DIGESTS).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise GlowError(f"Checkpoint file {directory / _DIGESTS} is damaged.") from None
    found = _digests(directory)
    for name in sorted(expected):
        if found.get(name) != expected[name]:
            fault = "is missing" if name not in found else "is damaged: its SHA-256 differs"
            others = [str(other) for other in whole_steps(folder) if other != step]
            advice = (
                f"; read --step {' or '.join(others)} instead, or move {directory} away to resume "
                "from there"
                if others
                else ""
            )
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
