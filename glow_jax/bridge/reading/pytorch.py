"""Files of torch.save, in the zip format of PyTorch 1.6 and in the one before it."""

import io
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import IO

from glow_jax.bridge.reading.budget import Budget, first_sentence
from glow_jax.bridge.reading.tensors import Storage, TensorReader, width_of
from glow_jax.bridge.reading.unpickle import Foreign, read_pickle, storage_dtype
from glow_jax.bridge.reading.zips import Zip
from glow_jax.errors import GlowError, shown

_MAGIC = 0x1950A86A20F9469CFC6C


def pickle_in(archive: Zip) -> str | None:
    """The name of the pickle in a zip that torch.save wrote; None if it is another kind of zip."""
    names = (name for name in archive.members if PurePosixPath(name).name == "data.pkl")
    return next(names, None)


def read_zip(archive: Zip, pickle: str, budget: Budget) -> tuple[object, TensorReader]:
    """The content of a zip that torch.save wrote, and what reads its tensors.

    Raises:
        GlowError: it is damaged, or too large.
    """
    root = pickle.removesuffix("data.pkl")

    def load(storage: Storage) -> bytearray:
        member = archive.members.get(f"{root}data/{storage.key}")
        if member is None:
            raise GlowError(
                f"{archive.name} is damaged: its record data/{shown(storage.key)} is missing."
            )
        return archive.read(member, budget, is_part=True)

    content = io.BytesIO(archive.read(archive.members[pickle], budget))
    order = archive.members.get(f"{root}byteorder")
    swapped = order is not None and archive.read(order, budget) == b"big"
    tree = _read_tree(content, _storage_of, archive.name)
    return tree, TensorReader(load, budget, swapped=swapped)


def read_legacy(file: IO[bytes], name: str, budget: Budget) -> tuple[object, TensorReader]:
    """The content of a file that torch.save wrote before PyTorch 1.6, and what reads its tensors.

    Raises:
        GlowError: it is no such file, is damaged, or too large.
    """
    known: dict[str, Storage] = {}

    def storage_of(reference: object) -> object:
        storage = _storage_of(reference)
        if isinstance(storage, Storage):
            known.setdefault(storage.key, storage)
        return storage

    size = file.seek(0, io.SEEK_END)
    if size > budget.limit:
        budget.take(size, name)
    file.seek(0)
    if file.read(1) != b"\x80":
        raise GlowError(
            f"{name} is not a PyTorch checkpoint, or it is damaged: it begins like no file of "
            "torch.save or safetensors, and is no zip or tar archive."
        )
    file.seek(0)
    magic = _read_tree(file, storage_of, name)
    if magic != _MAGIC:  # a pickle that torch.save did not write: only its names are of interest
        return magic, TensorReader(_no_storage, budget)
    _read_tree(file, storage_of, name)  # the version of the format, 1001
    system = _read_tree(file, storage_of, name)
    tree = _read_tree(file, storage_of, name)
    keys = _read_tree(file, storage_of, name)
    swapped = isinstance(system, dict) and system.get("little_endian") is False
    places = _places(file, keys, known, name, swapped)

    def load(storage: Storage) -> bytearray:
        if storage.key not in places:
            raise GlowError(f"{name} is damaged: the values of some tensor are missing.")
        file.seek(places[storage.key])
        size = storage.numel * width_of(storage.dtype)
        return budget.join(_chunks(file, size), name)

    return tree, TensorReader(load, budget, swapped=swapped)


def _places(
    file: IO[bytes], keys: object, known: dict[str, Storage], name: str, swapped: bool
) -> dict[str, int]:
    """Where in a file of the old format the bytes of each storage begin."""
    place = file.tell()
    end = file.seek(0, io.SEEK_END)
    places = {}
    for key in keys if isinstance(keys, list) else ():
        storage = known.get(key) if isinstance(key, str) else None
        if storage is None or not isinstance(storage.numel, int):
            raise GlowError(f"{name} is damaged: it stores values for no tensor.")
        file.seek(place)
        numel = int.from_bytes(file.read(8), "big" if swapped else "little")
        size = numel * width_of(storage.dtype)
        if numel != storage.numel or place + 8 + size > end:
            raise GlowError(
                f"{name} is not a PyTorch checkpoint, or it is damaged: it ends before its last "
                "tensor, or contradicts itself about a tensor's size."
            )
        places[storage.key] = place + 8
        place += 8 + size
    return places


def _chunks(file: IO[bytes], size: int):
    while size > 0 and (chunk := file.read(min(2**20, size))):
        size -= len(chunk)
        yield chunk


def _no_storage(storage: Storage) -> bytearray:
    raise GlowError(f"The storage {shown(storage.key)} is not in the file.")


def _storage_of(reference: object) -> object:
    """The storage that a reference in a pickle stands for."""
    match reference:
        case ("storage" | b"storage", kind, key, _, numel, *view):
            begin = view[0][1] if view and isinstance(view[0], tuple) else 0
            return Storage(str(key), storage_dtype(kind), numel, begin)  # type: ignore[arg-type]
    return Foreign("something outside the file")


def _read_tree(file: IO[bytes], storage_of: Callable[[object], object], name: str) -> object:
    try:
        return read_pickle(file, storage_of)
    except Exception as error:  # a damaged pickle can raise anything
        raise GlowError(
            f"{name} is not a PyTorch checkpoint, or it is damaged: {first_sentence(error)}."
        ) from error
