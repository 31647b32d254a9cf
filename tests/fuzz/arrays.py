"""Data sets of arrays: `.npz`, `.npy`, and folders of `.npy`."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from glow_jax.config import DataConfig
from glow_jax.data import Dataset, load_dataset
from glow_jax.data.sources.array_files import array_file_images

from . import zips
from .case import OUTSIDE, PRECIOUS, Case, UnusableError, new_folder, quietly, rng_of
from .damage import NAMES, damage_bytes, damage_file

Arrays = dict[str, np.ndarray]
_INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, bool]
_METHODS = [0, 0, 0, 8, 8, 12, 14]
_HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000,)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (%s, 4, 4, 1)}" % ("9" * 30),
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4, 4, 1)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 4, 4, 1)}",
    "{'descr': '|u1', 'fortran_order': True, 'shape': (12, 4, 4, 1)}",
    "{'descr': '|u1', 'fortran_order': 1, 'shape': (True, 4, 4, 1)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (12,)}",
    "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (12,)}",
    "{'descr': ('<i4', (2, 2)), 'fortran_order': False, 'shape': (12,)}",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (12,)}",
    "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (12,)}",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (12,)}",
    "{'descr': '|u1', 'shape': (12,)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 4, 4, 1), 'a': 1}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': 12}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 3000,
    "__import__('os').system('touch outside/ran')",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1" + ", 1" * 70 + ")}",
    "'" + "x" * 60_000,
    "\0",
]


def make(seed: int, folder: Path) -> Case:
    """The case of a seed."""
    rng, given = rng_of("arrays", seed), new_folder(folder)
    arrays, damage = _arrays(rng)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        damage.append(_damage_arrays(arrays, rng))
    files = {f"{name}.npy": _saved(array, rng, damage) for name, array in arrays.items()}
    kind = rng.choice(["npz"] * 5 + ["npy", "folder", "npy named npz"])
    match kind:
        case "npz":
            path = given / "a.npz"
            path.write_bytes(_npz(files, rng, damage))
        case "folder":
            path = given / "folder"
            path.mkdir()
            for name, content in files.items():
                (path / name).write_bytes(content)
        case _:
            path = given / ("a.npy" if kind == "npy" else "a.npz")
            path.write_bytes(next(iter(files.values()), b""))
    if rng.random() < 0.08:
        chosen = rng.choice(sorted(path.iterdir()) or [path]) if path.is_dir() else path
        if chosen.is_file():
            damage.append(damage_file(chosen, folder / OUTSIDE / PRECIOUS, rng))
    name = f"folder:{path}" if kind == "folder" else str(path)
    config = DataConfig(
        dataset=name,
        dataroot=str(folder / "given"),
        image_size=rng.choice([*[0] * 20, 4, 8]),
        memory_limit=rng.choice([*[8] * 20, 1e-6, 0]),
        class_limit=rng.choice([*[10_000] * 10, 2]),
    )
    return Case(lambda: quietly(lambda: _use(config)), [kind, *damage])


def _use(config: DataConfig) -> None:
    dataset = load_dataset(config)
    check_dataset(dataset)
    images = array_file_images(config)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UnusableError(f"images are {images.dtype} of {images.shape}")


def check_dataset(dataset: Dataset) -> None:
    """A data set has images of one shape, and labels for each or none.

    Raises:
        UnusableError: it has not.
    """
    for split in (dataset.train, dataset.test):
        part = split[np.arange(min(2, len(split)))]
        if part.images.dtype != np.uint8 or part.images.shape[1:3] != split.image_shape[:2]:
            raise UnusableError(f"images are {part.images.dtype} of {part.images.shape}")
        if len(part.labels) != len(part.images):
            raise UnusableError(f"{len(part.labels)} labels for {len(part.images)} images")


def _arrays(rng: random.Random) -> tuple[Arrays, list[str]]:
    generator = np.random.default_rng(rng.getrandbits(32))
    shape = rng.choice([(12, 4, 4, 1), (12, 4, 4, 3), (12, 4, 4), (12, 8, 4, 3), (12, 4, 4, 2)])
    arrays: Arrays = {"images": generator.integers(0, 256, shape, np.uint8)}
    kind = rng.choice(_INTEGERS)
    damage = [str(shape)]
    if rng.random() < 0.7:
        labels = np.arange(12) % 2
        arrays["labels"] = (np.eye(2)[labels] if rng.random() < 0.2 else labels).astype(kind)
        damage.append(np.dtype(kind).name)
    if rng.random() < 0.4:
        arrays["test_images"] = arrays["images"][:4]
        if "labels" in arrays:
            arrays["test_labels"] = arrays["labels"][:4]
    return arrays, damage


def _damage_arrays(arrays: Arrays, rng: random.Random) -> str:
    name = rng.choice(sorted(arrays)) if arrays else "images"
    array = arrays.get(name, np.zeros(1))
    change = rng.choice(_CHANGES)
    try:
        arrays[name] = np.asarray(_CHANGES_BY_NAME[change](array, rng))
    except (ValueError, IndexError, TypeError, OverflowError, RuntimeError):
        return "nothing"
    if rng.random() < 0.1:
        arrays[rng.choice(["Images", "x", "labels", "test_labels", "imagesimages"])] = array
    if rng.random() < 0.06:
        del arrays[name]
    return f"{change} {name}"


_CHANGES_BY_NAME: dict[str, Callable[[np.ndarray, random.Random], np.ndarray]] = {
    "type": lambda a, rng: a.astype(
        rng.choice([*_INTEGERS, np.float32, np.float16, complex, "U3", "S2", ">i4", ">u2"])
    ),
    "objects": lambda a, rng: a.astype(object),
    "dates": lambda a, rng: a.astype("M8[s]"),
    "shorter": lambda a, rng: a[: rng.choice([0, 1, 5])],
    "axes": lambda a, rng: a[..., None],
    "first": lambda a, rng: np.moveaxis(a, -1, 0),
    "flat": lambda a, rng: a.reshape(-1),
    "empty": lambda a, rng: a[..., :0],
    "scalar": lambda a, rng: a.reshape(-1)[0],
    "columns": lambda a, rng: a.reshape(len(a), -1)[:, :1],
    "odd": lambda a, rng: np.full(
        a.shape, rng.choice([-1, 1, 127, 255, 60_000, 2**31, 2**62, 9_999])
    ).astype(rng.choice([a.dtype, np.int64, np.uint64])),
    "fortran": lambda a, rng: np.asfortranarray(a),
    "random": lambda a, rng: np.frombuffer(rng.randbytes(a.nbytes), a.dtype).reshape(a.shape),
}
_CHANGES = sorted(_CHANGES_BY_NAME)


def _saved(array: np.ndarray, rng: random.Random, damage: list[str]) -> bytes:
    """An `.npy`, its header forged at times."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=rng.choice([None, (2, 0), (3, 0)]))
    data, chance = buffer.getvalue(), rng.random()
    if chance < 0.06:
        damage.append("header")
        return forged_array(data, rng)
    if chance < 0.1:
        data, how = damage_bytes(data, rng)
        damage.append(how)
    return data


def forged_array(data: bytes, rng: random.Random) -> bytes:
    """An `.npy` with another header, or one that is said to be longer than any."""
    header = rng.choice(_HEADERS).encode() + b"\n"
    if rng.random() < 0.2:
        length = rng.choice([0, 2**31, 2**32 - 1]).to_bytes(4, "little")
        return b"\x93NUMPY\2\0" + length + header + data[128:]
    return b"\x93NUMPY\1\0" + min(len(header), 65_535).to_bytes(2, "little") + header + data[128:]


def _npz(files: dict[str, bytes], rng: random.Random, damage: list[str]) -> bytes:
    records = list(files.items())
    chance = rng.random()
    if chance < 0.1:
        name = rng.choice([*NAMES, "images", "labels", "labels.npy", "images.npy.npy"])
        records.append((name, rng.choice([b"", b"\x93NUMPY", *files.values()])))
        damage.append(f"extra {name[:20]!r}")
    method = rng.choice(_METHODS)
    data = zips.to_zip(records, method)
    if chance > 0.95 and records:
        damage.append("bomb")
        return zips.with_bomb(records, rng.randrange(len(records)), rng.choice([8, 12, 14]))
    if chance > 0.85:
        data, how = zips.damage_zip(data, rng) if records else (data, "nothing")
        damage.append(how)
    elif chance > 0.8:
        data, how = damage_bytes(data, rng)
        damage.append(how)
    return data
