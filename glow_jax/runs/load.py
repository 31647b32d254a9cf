"""Loading the checkpoints of a run folder."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from glow_jax.config import Config
from glow_jax.errors import GlowError
from glow_jax.model import Glow, abstract_glow, computing
from glow_jax.runs import version_1
from glow_jax.runs.digests import first_damaged
from glow_jax.runs.folder import CHECKPOINTS, WhichStep, choose_step, step_folder, whole_steps
from glow_jax.runs.hparams import HPARAMS, read_config

_T = TypeVar("_T")
_Arrays = Mapping[version_1.Path, jax.ShapeDtypeStruct]

# Orbax reports every save and restore through absl, and every error again in each of its threads;
# what a user must know raises.
logging.getLogger("absl").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class LoadedRun:
    """A checkpoint of a run folder, as `load_run` returns it.

    Attributes:
        folder: the run folder.
        config: the run's configuration.
        step: the number of updates behind the checkpoint.
        model: the model as trained.
        average: the model with averaged parameters, if the run keeps them.
        has_optimizer: whether `load_optimizer_state` finds one.
        progress: what training noted down; see `glow_jax.training.progress`.
    """

    folder: Path
    config: Config
    step: int
    model: Glow
    average: Glow | None
    has_optimizer: bool
    progress: Mapping[str, object]

    @property
    def best_model(self) -> Glow:
        """The model to evaluate and sample with: the average where there is one."""
        return self.average or self.model


def load(folder: str | Path, step: WhichStep = None) -> Glow:
    """Load the model of a run folder.

    Args:
        folder: what `train.py` or `convert/from_torch.py` wrote.
        step: a step's number, "best" for the best on the validation split, None for the newest.

    Returns:
        The model, with its averaged parameters where the run keeps them. It computes in the type
        that the run was trained in.

    Raises:
        GlowError: no such folder or step, a file is damaged, or the checkpoint does not match
            `hparams.json`.
    """
    return load_run(folder, step).best_model


def load_run(folder: str | Path, step: WhichStep = None) -> LoadedRun:
    """Load everything of a run folder's checkpoint but the optimizer; as `load`."""
    folder = Path(folder)
    config = read_config(folder)
    number = choose_step(folder, step)
    _verify(folder, number)
    abstract = abstract_glow(config.model)
    variables = dict(nnx.to_flat_state(nnx.state(abstract)))
    params = {path for path, variable in variables.items() if isinstance(variable, nnx.Param)}
    with _reader(folder) as manager:
        items = manager.item_metadata(number)
        saved = items["model"].tree
        is_old = version_1.is_version_1(saved)
        # Where each array of the model lies in the items `model` and `average`.
        in_model, in_average = {path: path for path in variables}, {path: path for path in params}
        if is_old:
            in_average = {path: version_1.name_in_version_1(path) for path in variables}
            group = {path: "params" if path in params else "buffers" for path in variables}
            in_model = {path: (group[path], *place) for path, place in in_average.items()}
        shapes = {path: _abstract(variable, path, is_old) for path, variable in variables.items()}
        target = {place: shapes[path] for path, place in in_model.items()}
        _check_match(folder, number, target, flatten_dict(saved))
        wanted: dict[str, ocp.args.CheckpointArgs] = {
            "model": ocp.args.StandardRestore(unflatten_dict(target)),
            "progress": ocp.args.JsonRestore(),
        }
        if "average" in items:
            of_average = {in_average[path]: shapes[path] for path in params}
            wanted["average"] = ocp.args.StandardRestore(unflatten_dict(of_average))
        restored = manager.restore(number, args=ocp.args.Composite(**wanted))

    def build(values: Mapping[version_1.Path, jax.Array]) -> Glow:
        model = nnx.clone(abstract)
        arrays = {path: value.reshape(variables[path].shape) for path, value in values.items()}
        nnx.update(
            model,
            nnx.from_flat_state(
                [(path, variables[path].replace(array)) for path, array in arrays.items()]
            ),
        )
        return computing(model, dtype=config.training.dtype)

    found = flatten_dict(restored["model"])
    trained = {path: found[place] for path, place in in_model.items()}
    average = None
    if "average" in items:
        found = flatten_dict(restored["average"])
        average = build(trained | {path: found[in_average[path]] for path in params})
    return LoadedRun(
        folder=folder,
        config=config,
        step=number,
        model=build(trained),
        average=average,
        has_optimizer="optimizer" in items,
        progress=restored["progress"],
    )


def load_optimizer_state(folder: str | Path, target: _T, step: WhichStep = None) -> _T:
    """Load the optimizer's state of a checkpoint.

    Args:
        folder: the run folder.
        target: a state of the same optimizer for the same model (arrays or their shapes).
        step: as for `load`.

    Raises:
        GlowError: as for `load`, or the checkpoint holds no state of such an optimizer.
    """
    folder = Path(folder)
    number = choose_step(folder, step)
    _verify(folder, number)
    paths, structure = jax.tree_util.tree_flatten_with_path(target)
    with _reader(folder) as manager:
        items = manager.item_metadata(number)
        if "optimizer" not in items:
            raise GlowError(f"Step {number} of {folder} was saved without an optimizer's state.")
        is_old = version_1.is_version_1(items["model"].tree)
        names, shapes = [], []
        for path, leaf in paths:
            parts = tuple(path_name(path).split("."))
            names.append(".".join(version_1.name_in_version_1(parts) if is_old else parts))
            shapes.append(_abstract(leaf, parts, is_old))
        wanted = dict(zip(names, shapes, strict=True))
        args = ocp.args.Composite(optimizer=ocp.args.StandardRestore(wanted))
        try:
            restored = manager.restore(number, args=args)["optimizer"]
        except (ValueError, KeyError, TypeError) as error:
            raise GlowError(
                f"The optimizer's state in step {number} of {folder} is of another optimizer or "
                "model than this run's."
            ) from error
    leaves = [
        restored[name].reshape(leaf.shape) for name, (_, leaf) in zip(names, paths, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def _verify(folder: Path, step: int) -> None:
    """Raise `GlowError` unless every file of a step is as it was saved."""
    damage = first_damaged(step_folder(folder, step))
    if damage is not None:
        others = [str(other) for other in whole_steps(folder) if other != step]
        advice = f"; give --step {' or --step '.join(others)} to use another" if others else ""
        raise GlowError(f"{damage}{advice}.")


def _reader(folder: Path) -> ocp.CheckpointManager:
    arrays = ("model", "average", "optimizer")
    handlers: dict[str, ocp.CheckpointHandler] = {
        name: ocp.StandardCheckpointHandler() for name in arrays
    }
    return ocp.CheckpointManager(
        (folder / CHECKPOINTS).absolute(),
        options=ocp.CheckpointManagerOptions(read_only=True),
        item_handlers=handlers | {"progress": ocp.JsonCheckpointHandler()},
    )


def _abstract(
    leaf: jax.Array | jax.ShapeDtypeStruct, path: version_1.Path, is_old: bool
) -> jax.ShapeDtypeStruct:
    """What an array is restored as: on this process's first device."""
    shape = version_1.shape_in_version_1(path, leaf.shape) if is_old else leaf.shape
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)


def _check_match(folder: Path, step: int, target: _Arrays, saved: _Arrays) -> None:
    def shapes(arrays: _Arrays) -> dict[str, tuple[int, ...]]:
        return {".".join(map(str, path)): tuple(leaf.shape) for path, leaf in arrays.items()}

    wanted, found = shapes(target), shapes(saved)
    for name in sorted(set(wanted) | set(found)):
        if wanted.get(name) != found.get(name):
            raise GlowError(
                f"{folder / HPARAMS} does not match the checkpoint of step {step}: {name} is "
                f"{found.get(name, 'absent')} there and {wanted.get(name, 'absent')} by {HPARAMS}."
            )


def path_name(path: tuple[object, ...]) -> str:
    """The name under which an array of an optimizer's state is saved: the path that leads to it."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
