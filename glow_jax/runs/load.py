"""Loading the checkpoints of a run folder."""

import functools
import inspect
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import jax
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from glow_jax.config import Config
from glow_jax.errors import GlowError
from glow_jax.model import Glow, abstract_glow, computing
from glow_jax.runs import version_1
from glow_jax.runs.digests import check_origin
from glow_jax.runs.folder import CHECKPOINTS, WhichStep, step_folder
from glow_jax.runs.hparams import HPARAMS, read_config
from glow_jax.runs.loaded import LoadedRun
from glow_jax.runs.reading import reading, verify
from glow_jax.runs.version_1 import Keys

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_T = TypeVar("_T")
_Shaped = Mapping[Keys, jax.Array] | Mapping[Keys, jax.ShapeDtypeStruct]

# Orbax logs every save and restore through absl, and every error once more in each of its threads.
# What the user must know is raised.
logging.getLogger("absl").setLevel(logging.CRITICAL)


def load_run(folder: str | Path, step: WhichStep = None, *, average: bool = True) -> LoadedRun:
    """Load a checkpoint of a run folder, except the optimizer's state.

    Args:
        folder: a run folder that `train.py` or a converter wrote.
        step: a step's number; "best" for the best on the validation split; None for the newest.
        average: take the averaged parameters too, if the run keeps them.

    Raises:
        GlowError: there is no such folder or step, a file is damaged, or the checkpoint does not
            match `hparams.json`.
    """
    folder = Path(folder)
    config = read_config(folder)
    abstract = abstract_glow(config.model)

    def load_step(number: int) -> LoadedRun:
        return _load_step(folder, number, config, abstract, average=average)

    return reading(folder, step, load_step)


def _load_step(
    folder: Path, number: int, config: Config, abstract: Glow, *, average: bool
) -> LoadedRun:
    verify(folder, number, nnx.state(abstract))
    with _reader(folder) as manager:
        items = manager.item_metadata(number)
        saved_tree = _SavedTree(abstract, items["model"].tree)
        _check_match(folder, number, saved_tree.of_model, _flat(items["model"].tree))
        check_origin(step_folder(folder, number), config, folder / HPARAMS)
        wanted = {"model": unflatten_dict(saved_tree.of_model)}
        if average and "average" in items:
            wanted["average"] = unflatten_dict(saved_tree.of_average)
        restored = _restore(manager, number, wanted, values=("progress",))

    def build(*trees: Mapping[str, object]) -> Glow:
        return computing(saved_tree.fill(*trees), dtype=config.training.dtype)

    model = restored["model"]
    return LoadedRun(
        folder=folder,
        config=config,
        step=number,
        model=build(model),
        average=build(model, restored["average"]) if "average" in wanted else None,
        has_optimizer="optimizer" in items,
        progress=restored["progress"],
    )


class _SavedTree:
    """Where the arrays of a model are in a checkpoint of the current version or of version 1.

    Attributes:
        of_model: the arrays of the item `model`, by their keys there.
        of_average: the arrays of the item `average`, by their keys there.
    """

    def __init__(self, abstract: Glow, saved: object):
        """Find the places of a model's arrays in a saved tree of the version of `saved`."""
        self._abstract = abstract
        self._variables: dict[Keys, nnx.Variable] = {}
        self._keys: dict[Keys, Keys] = {}  # from the keys in a saved tree to the model's
        self.of_model: dict[Keys, jax.ShapeDtypeStruct] = {}
        self.of_average: dict[Keys, jax.ShapeDtypeStruct] = {}
        is_old = version_1.is_version_1(saved)
        for path, variable in nnx.to_flat_state(nnx.state(abstract)):
            keys = cast(Keys, path)
            self._variables[keys] = variable
            there, is_param = keys, isinstance(variable, nnx.Param)
            if is_old:
                there = version_1.name_in_version_1(keys)
            array = _abstract(variable, keys, is_old)
            if is_param:
                self.of_average[there] = array
                self._keys[there] = keys
            if is_old:
                there = ("params" if is_param else "buffers", *there)
            self.of_model[there] = array
            self._keys[there] = keys

    def fill(self, *trees: Mapping[str, object]) -> Glow:
        """The model with the arrays of saved trees; later trees override earlier ones."""
        model = nnx.clone(self._abstract)
        for tree in trees:
            filled = []
            for there, array in _flat(tree).items():
                variable = self._variables[self._keys[there]]
                filled.append((self._keys[there], variable.replace(array.reshape(variable.shape))))
            nnx.update(model, nnx.from_flat_state(filled))
        return model


def load_optimizer_state(folder: str | Path, target: _T, step: WhichStep = None) -> _T:
    """Load the optimizer's state of a checkpoint.

    Args:
        folder: the run folder.
        target: a state of the same optimizer for the same model (arrays or their shapes).
        step: as for `load_run`.

    Raises:
        GlowError: as for `load_run`, or the checkpoint has no state of this optimizer.
    """
    folder = Path(folder)
    return reading(folder, step, lambda number: _load_optimizer(folder, number, target))


def _load_optimizer(folder: Path, number: int, target: _T) -> _T:
    verify(folder, number, target)
    paths, structure = jax.tree_util.tree_flatten_with_path(target)
    with _reader(folder) as manager:
        items = manager.item_metadata(number)
        if "optimizer" not in items:
            raise GlowError(f"Step {number} of {folder} was saved without an optimizer's state.")
        is_old = version_1.is_version_1(items["model"].tree)
        names, shapes = [], []
        for path, leaf in paths:
            keys: Keys = tuple(path_name(path).split("."))
            there = version_1.name_in_version_1(keys) if is_old else keys
            names.append(".".join(map(str, there)))
            shapes.append(_abstract(leaf, keys, is_old))
        wanted = dict(zip(names, shapes, strict=True))
        try:
            restored = _restore(manager, number, {"optimizer": wanted})["optimizer"]
        except (ValueError, KeyError, TypeError) as error:
            raise GlowError(
                f"The optimizer's state in step {number} of {folder} belongs to another optimizer "
                "or model than this run's."
            ) from error
    leaves = [
        restored[name].reshape(leaf.shape) for name, (_, leaf) in zip(names, paths, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


@functools.cache
def _ignore_late_reads() -> None:
    """Let Python say nothing of reads that end after Orbax has given up a damaged checkpoint.

    Orbax closes its event loop at the first error. Each read that is still going on then fails in a
    thread of its own, or when it is collected, and Python or asyncio would print a traceback of it.
    """
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        error, place = unraisable.exc_value, unraisable.object
        is_closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        is_read = inspect.iscoroutine(place) and "orbax" in place.cr_code.co_filename
        if not is_closed and not is_read:
            before(unraisable)

    def is_news(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        is_read = isinstance(error, ValueError) and '"zarr" driver' in str(error)
        return not (is_read and record.getMessage().startswith("Task exception was never retr"))

    sys.unraisablehook = hook
    logging.getLogger("asyncio").addFilter(is_news)


def _reader(folder: Path) -> "ocp.CheckpointManager":
    import orbax.checkpoint as ocp  # a third of a second: not at `import glow_jax`

    _ignore_late_reads()
    arrays = ("model", "average", "optimizer")
    handlers: dict[str, ocp.CheckpointHandler] = {
        name: ocp.StandardCheckpointHandler() for name in arrays
    }
    return ocp.CheckpointManager(
        (folder / CHECKPOINTS).absolute(),
        options=ocp.CheckpointManagerOptions(read_only=True),
        item_handlers=handlers | {"progress": ocp.JsonCheckpointHandler()},
    )


def _restore(
    manager: "ocp.CheckpointManager",
    step: int,
    arrays: Mapping[str, object],
    *,
    values: Iterable[str] = (),
) -> Mapping[str, Mapping[str, Any]]:
    """Read items of a step: those of arrays by the arrays' shapes, those of plain values whole."""
    import orbax.checkpoint as ocp

    args: dict[str, ocp.args.CheckpointArgs] = {
        name: ocp.args.StandardRestore(shapes) for name, shapes in arrays.items()
    }
    args |= {name: ocp.args.JsonRestore() for name in values}
    return manager.restore(step, args=ocp.args.Composite(**args))


def _abstract(
    leaf: nnx.Variable | jax.Array | jax.ShapeDtypeStruct, keys: Keys, is_old: bool
) -> jax.ShapeDtypeStruct:
    """The shape and dtype to restore an array with, on this process's first device."""
    shape = version_1.shape_in_version_1(keys, leaf.shape) if is_old else leaf.shape
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)


def _flat(tree: object) -> dict[Keys, jax.Array]:
    """The arrays of a saved tree, by their keys."""
    return cast(dict[Keys, jax.Array], flatten_dict(cast(dict, tree)))


def _check_match(folder: Path, step: int, target: _Shaped, saved: _Shaped) -> None:
    def shapes(arrays: _Shaped) -> dict[str, tuple[int, ...]]:
        return {".".join(map(str, keys)): tuple(leaf.shape) for keys, leaf in arrays.items()}

    wanted, found = shapes(target), shapes(saved)
    for name in sorted(set(wanted) | set(found)):
        if wanted.get(name) != found.get(name):
            raise GlowError(
                f"{folder / HPARAMS} does not match the checkpoint of step {step}: {name} is "
                f"{found.get(name, 'absent')} there and {wanted.get(name, 'absent')} by {HPARAMS}."
            )


def path_name(path: tuple[object, ...]) -> str:
    """The name of an array in a saved optimizer state: the path that leads to it."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
