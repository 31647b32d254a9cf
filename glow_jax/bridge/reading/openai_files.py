"""The files of openai/glow: checkpoints of TensorFlow 1, archives of them, and frozen graphs."""

import re
from collections.abc import Iterable, Iterator, KeysView, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from glow_jax.bridge.reading.archive import is_tar, unpacking
from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, Budget, guarded
from glow_jax.bridge.reading.bundle import read_bundle
from glow_jax.bridge.reading.graph import read_graph
from glow_jax.bridge.reading.places import Folder, Region, open_file
from glow_jax.bridge.reading.settings import LARGEST, parse_settings
from glow_jax.bridge.reading.tars import Tar
from glow_jax.bridge.reading.tensors import StoredTensor, TensorReader
from glow_jax.bridge.reading.variables import Variable
from glow_jax.errors import GlowError, shown

__all__ = ["OpenaiFile", "Variable", "open_openai"]

_PREFERRED = "model_best_loss.ckpt"
_INDEX = ".index"
# Some file systems and tools write all names in capitals.
_ENDING = re.compile(r"(?i)\.index$")
_DATA = re.compile(r"(?i)\.data-\d{5}-of-\d{5}$")
# Line 1 of the first two holds every setting; the third is that line alone.
_SETTINGS = ("train.txt", "test.txt", "hps.json")


class _Files(Protocol):
    """The files of a folder or of an archive."""

    @property
    def name(self) -> str: ...
    @property
    def names(self) -> set[str] | KeysView[str]: ...
    def open(self, name: str) -> Region: ...


@dataclass(frozen=True)
class OpenaiFile:
    """A checkpoint or a frozen graph, open for reading.

    Attributes:
        name: its name, as it may stand in a message.
        variables: the variables of a checkpoint, or the constants of a graph, by name.
        is_graph: whether it is a frozen graph.
        settings: the settings of the run that wrote it, without nulls; None if there are none.
        settings_problem: why there are no settings; None if there are.
        read_names: the names of the variables that a graph reads, also of those that it has lost.
    """

    name: str
    variables: Mapping[str, Variable]
    is_graph: bool
    settings: Mapping[str, object] | None
    settings_problem: str | None
    _tensors: Mapping[str, StoredTensor]
    _reader: TensorReader
    _budget: Budget
    read_names: frozenset[str] = frozenset()

    def read(self, name: str) -> np.ndarray:
        """The values of a variable; half precision as float32. No other variable is read.

        Args:
            name: its name, one of `variables`.

        Raises:
            GlowError: its bytes are not those that were written, it has a kind or a shape that
                weights never have, or there is no memory left.
        """
        with guarded(self.name):
            return self._reader.read(self._tensors[name], name)

    def give_back(self, arrays: Iterable[np.ndarray]) -> None:
        """Count the memory of arrays that were read and are no longer held."""
        self._budget.give_back(sum(array.nbytes for array in arrays))


@contextmanager
def open_openai(path: Path, *, memory: int = DEFAULT_LIMIT) -> Iterator[OpenaiFile]:
    """Open a file of openai/glow in any form in which it is passed around.

    Args:
        path: a folder with a checkpoint; what its files' names begin with; its `.index` or one of
            its `.data` files; a tar archive of such a folder, which gzip, bzip2 or xz may have
            compressed; or a frozen graph, whose name ends in `.pb`.
        memory: the number of bytes that reading may take.

    Raises:
        GlowError: there is no such file, or it is damaged, too large, or of another kind.
    """
    budget = Budget(memory)
    with ExitStack() as opened:
        with guarded(shown(str(path), 200)):
            file = _open(path, budget, opened)
        yield file


def _open(path: Path, budget: Budget, opened: ExitStack) -> OpenaiFile:
    """What a path leads to."""
    name = shown(str(path), 200)
    if path.is_dir():
        return _checkpoint(Folder(path, opened), None, budget)
    if path.suffix.lower() == ".pb":
        graph = read_graph(opened.enter_context(open_file(path)), name, budget)
        settings = _settings(Folder(path.parent, opened), "")
        variables = _declared(graph.tensors)
        content = (graph.tensors, graph.reader, budget, graph.variables)
        return OpenaiFile(name, variables, True, *settings, *content)
    prefix = _DATA.sub("", _ENDING.sub("", path.name))
    if not path.exists() and not path.with_name(prefix + _INDEX).exists():
        raise GlowError(f"There is no file {name}, and no checkpoint whose files' names begin so.")
    if prefix != path.name or not path.exists():
        return _checkpoint(Folder(path.parent, opened), prefix, budget)
    file = opened.enter_context(open_file(path))
    if not is_tar(file) and unpacking(file) is None:
        raise GlowError(
            f"{name} is no file of openai/glow: give the folder of a checkpoint, its .index, a tar "
            "archive of it, or the .pb of a frozen graph."
        )
    return _checkpoint(Tar(file, name, _is_wanted, budget), None, budget)


def _checkpoint(files: _Files, prefix: str | None, budget: Budget) -> OpenaiFile:
    """A checkpoint in a folder or an archive: the one asked for, or else the one to prefer."""
    prefix = _choose(files, prefix)

    def open_shard(number: int, shards: int) -> Region:
        name = f"{prefix}.data-{number:05d}-of-{shards:05d}"
        shard = _spelt(files, name)
        if shard is None:
            raise GlowError(f"{files.name} lacks {shown(name)}, where its values are to be.")
        return files.open(shard)

    index = files.open(_spelt(files, prefix + _INDEX) or prefix + _INDEX)
    tensors, reader = read_bundle(index, open_shard, budget)
    settings = _settings(files, prefix)
    name = f"{shown(prefix)} in {files.name}"
    return OpenaiFile(name, _declared(tensors), False, *settings, tensors, reader, budget)


def _choose(files: _Files, wanted: str | None) -> str:
    """What the names of a checkpoint's files begin with.

    Raises:
        GlowError: there is no checkpoint, or several and none of them is to be preferred.
    """
    found = [_ENDING.sub("", name) for name in sorted(files.names) if _ENDING.search(name)]
    if wanted is not None:
        if wanted not in found:
            raise GlowError(f"{files.name} holds no {shown(wanted + _INDEX)}.")
        return wanted
    with_values = {_DATA.sub("", name) for name in files.names if _DATA.search(name)}
    found = [prefix for prefix in found if prefix in with_values] or found
    preferred = [prefix for prefix in found if PurePosixPath(prefix).name.lower() == _PREFERRED]
    chosen = preferred or found
    if not chosen:
        raise GlowError(f"{files.name} holds no checkpoint of TensorFlow: no {_PREFERRED}{_INDEX}.")
    if len(chosen) > 1:
        names = ", ".join(shown(prefix) for prefix in chosen[:8])
        first = "unpack it and " if isinstance(files, Tar) else ""
        raise GlowError(
            f"{files.name} holds {len(chosen)} checkpoints ({names}): {first}give the .index of "
            "one."
        )
    return chosen[0]


def _spelt(files: _Files, name: str) -> str | None:
    """A name as a folder or archive spells it, in small letters or capitals; None without it."""
    if name in files.names:
        return name
    return next((other for other in files.names if other.lower() == name.lower()), None)


def _is_wanted(name: str) -> bool:
    """Whether a file in an archive may belong to a checkpoint."""
    path = PurePosixPath(name)
    if path.name.startswith("._"):  # what macOS packs beside a file
        return False
    if path.name.lower() in _SETTINGS:
        return True
    return bool(_ENDING.search(name) or _DATA.search(name))


def _settings(files: _Files, prefix: str) -> tuple[dict[str, object] | None, str | None]:
    """The settings beside a checkpoint, or why there are none."""
    problems = []
    for name in [*_beside(files, prefix), *_elsewhere(files)]:
        try:
            region = files.open(name)
            content = region.head(LARGEST + 1)
            if not name.endswith(".json"):
                content = content.split(b"\n", 1)[0]
            return parse_settings(content, region.name), None
        except GlowError as error:
            problems.append(str(error))
    none = f"{files.name} holds no {', '.join(_SETTINGS[:-1])} or {_SETTINGS[-1]}."
    return None, next(iter(problems), none)


def _beside(files: _Files, prefix: str) -> list[str]:
    """The names of files of settings in the folder of a checkpoint."""
    folder = prefix[: prefix.rfind("/") + 1]
    found = (_spelt(files, folder + base) for base in _SETTINGS)
    return [name for name in found if name is not None]


def _elsewhere(files: _Files) -> list[str]:
    """The names of files of settings in an archive of one checkpoint, if each is the only one."""
    if sum(bool(_ENDING.search(name)) for name in files.names) != 1:
        return []
    found = [
        [name for name in files.names if PurePosixPath(name).name == base] for base in _SETTINGS
    ]
    return [names[0] for names in found if len(names) == 1]


def _declared(tensors: Mapping[str, StoredTensor]) -> dict[str, Variable]:
    return {name: Variable(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
