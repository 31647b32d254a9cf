"""Pictures of every format that Pillow writes here, in folders and archives."""

import functools
import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from glow_jax.config import DataConfig
from glow_jax.data import load_dataset
from glow_jax.data.decoding import UnreadableError
from glow_jax.data.pictures import examine, open_picture

from . import zips
from .arrays import check_dataset, forged_array
from .case import OUTSIDE, PRECIOUS, Case, UnusableError, new_folder, quietly, rng_of
from .damage import damage_bytes, damage_file

_MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
# What Pillow writes and what the program must refuse, however such a file is called.
_FOREIGN = {
    "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(outside/ran) (w) file closefile\n",
    "a.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a.wmf": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "a.npy": b"\x93NUMPY\1\0",
}
_NAMES = [
    "a",
    "b.png",
    "ä",
    "\udcff",
    "a\nb",
    "x" * 200,
    "-rf",
    ".hidden",
    "Thumbs",
    "a b",
    "\x1b[2J",
]


@functools.cache
def _formats() -> list[tuple[str, str]]:
    """The formats that Pillow writes here, each with an ending."""
    Image.init()
    endings = {name: ending for ending, name in sorted(Image.EXTENSION.items())}
    return sorted((name, endings[name]) for name in Image.SAVE if name in endings and name != "PDF")


@functools.cache
def _encoded(number: int, mode: str, side: int) -> bytes | None:
    """A small picture in a format and a mode; None where the format has no such mode."""
    name, _ = _formats()[number]
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    try:
        picture = (
            picture.convert("L").convert(mode)
            if mode in ("I", "I;16", "F")
            else (picture.convert(mode))
        )
        more = [picture.rotate(90)] if side == 5 else []
        if more:
            picture.save(buffer, name, save_all=True, append_images=more)
        else:
            exif = Image.Exif()
            exif[0x0112] = side % 9
            picture.save(buffer, name, exif=exif)
    except Exception:  # Pillow raises anything of what a format cannot hold
        return None
    return buffer.getvalue()


def _whole(rng: random.Random) -> tuple[int, str, bytes]:
    """A picture in any format and mode that go together."""
    while True:
        number, mode = rng.randrange(len(_formats())), rng.choice([*_MODES, "RGB", "L"])
        content = _encoded(number, mode, rng.choice([4, 5, 6, 7, 9]))
        if content is not None:
            return number, mode, content


def _picture(rng: random.Random) -> tuple[str, bytes, str]:
    """An ending, the content of a file, and what was done to it."""
    if rng.random() < 0.05:
        name = rng.choice(sorted(_FOREIGN))
        return rng.choice([Path(name).suffix, ".png", ".jpg"]), _FOREIGN[name], name
    if rng.random() < 0.08:
        return ".png", _huge_png(rng), "huge png"
    number, mode, content = _whole(rng)
    name, ending = _formats()[number]
    about = f"{name} {mode}"
    chance = rng.random()
    if chance < 0.45:
        content, how = damage_bytes(content, rng)
        about += f" {how}"
    elif chance < 0.55 and name == "PNG":
        content, about = _recrc(content, rng), f"{about} chunk"
    return rng.choice([ending, ending, ending, ".png", ".JPG", ".tga", ".npy"]), content, about


def _huge_png(rng: random.Random) -> bytes:
    """A PNG that is said to be huge, with few bytes or with a bomb behind."""
    width, height = rng.choice(
        [(2**31 - 1, 1), (65_535, 65_535), (20_000, 9_000), (0, 4), (1, 10**6)]
    )
    kind = rng.choice([0, 2, 3, 4, 6, 9])
    body = zlib.compress(bytes(rng.choice([10, 10**5])), 9)
    chunks = [(b"IHDR", struct.pack(">2L5B", width, height, rng.choice([1, 8, 16]), kind, 0, 0, 0))]
    chunks += [(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6), 9))] if rng.random() < 0.3 else []
    chunks += [(b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def _recrc(data: bytes, rng: random.Random) -> bytes:
    """A PNG with a chunk damaged and its checksum made anew."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">L", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    number = rng.randrange(len(chunks))
    name, content = chunks[number]
    chunks[number] = (name, damage_bytes(content, rng)[0])
    return data[:8] + b"".join(_chunk(name, content) for name, content in chunks)


def make(seed: int, folder: Path) -> Case:
    """The case of a seed: one picture, or a folder or an archive of some."""
    rng, given = rng_of("pictures", seed), new_folder(folder)
    if rng.random() < 0.5:
        ending, content, about = _picture(rng)
        mode = rng.choice(["L", "RGB"])
        source: Path | bytes = content
        if rng.random() < 0.5:
            source = given / f"a{ending}"
            source.write_bytes(content)
        limit = rng.choice([200.0, 200.0, 1e-5])
        return Case(lambda: quietly(lambda: _open(source, mode, limit, ending)), [about, ending])
    damage: list[str] = []
    files = _files(rng, damage)
    if rng.random() < 0.4:
        data = zips.to_zip(list(files.items()), rng.choice([0, 8, 8, 12, 14]))
        if rng.random() < 0.5:
            data, how = zips.damage_zip(data, rng) if files else damage_bytes(data, rng)
            damage.append(how)
        path = given / "a.zip"
        path.write_bytes(data)
        name = str(path)
    else:
        _write_folder(given / "root", files, folder / OUTSIDE / PRECIOUS, rng, damage)
        name = f"folder:{given / 'root'}"
    config = DataConfig(
        dataset=name,
        dataroot=str(folder / "data"),
        image_size=rng.choice([4, 4, 4, 4, 0, 7, 16_384]),
        channels=rng.choice(["auto", "auto", "1", "3"]),
        picture_limit=rng.choice([200, 200, 1e-5]),
    )
    kept = folder / "data" / "decoded"

    def load() -> None:
        check_dataset(load_dataset(config))
        if rng.random() < 0.3:  # what is kept of the pictures may be damaged, too
            _damage_kept(kept, folder / OUTSIDE / PRECIOUS, rng)
            check_dataset(load_dataset(config))

    return Case(lambda: quietly(load), damage)


def _damage_kept(kept: Path, outside: Path, rng: random.Random) -> None:
    files = sorted(path for path in kept.rglob("*") if path.is_file())
    path = rng.choice(files)
    if path.suffix == ".npy" and rng.random() < 0.5:
        path.write_bytes(forged_array(path.read_bytes(), rng))
    else:
        damage_file(path, outside, rng)


def _open(source: Path | bytes, mode: str, limit: float, ending: str) -> None:
    try:
        facts = examine(source, limit=limit, ending=ending)
    except UnreadableError as error:
        if len(str(error)) > 1000 or not str(error).isprintable():
            raise UnusableError("the reason is no printable line") from error
        raise
    picture = open_picture(source, mode, limit=limit, ending=ending)
    if picture.size != facts.size or picture.mode != mode:
        raise UnusableError(f"{picture.mode} of {picture.size}, not {mode} of {facts.size}")


def _files(rng: random.Random, damage: list[str]) -> dict[str, bytes]:
    """Pictures by their paths, in classes or splits at times."""
    tops = rng.choice([[""], [""], ["cat/", "dog/"], ["train/", "test/"], ["train/a/", "train/b/"]])
    tops = [*tops, *rng.choice([[], [], [], [".git/"], ["__MACOSX/"], ["val/a/"], ["ä\n/"]])]
    files: dict[str, bytes] = {}
    for number in range(rng.choice([0, 2, 6, 6, 12])):
        ending, content, about = _picture(rng)
        if number < 4 and rng.random() < 0.8:  # so that most folders have pictures
            content, ending, about = _encoded_png(), ".png", "PNG"
        stem = f"{number}" if rng.random() < 0.9 else rng.choice(_NAMES)
        files[f"{rng.choice(tops)}{stem}{ending}"] = content
        damage.append(about)
    return files


@functools.cache
def _encoded_png() -> bytes:
    names = [name for name, _ in _formats()]
    return _encoded(names.index("PNG"), "RGB", 9) or b""


def _write_folder(
    root: Path, files: dict[str, bytes], outside: Path, rng: random.Random, damage: list[str]
) -> None:
    root.mkdir()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if rng.random() < 0.05:
            damage.append(damage_file(path, outside, rng))
    kind = rng.choice([""] * 6 + ["loop", "up", "dangling", "pipe", "outside", "deep"])
    damage.append(kind)
    match kind:
        case "loop":
            (root / "l1").symlink_to(root / "l2")
            (root / "l2").symlink_to(root / "l1")
        case "up":
            (root / "up").symlink_to(root)
        case "dangling":
            (root / "dangling.png").symlink_to(root / "nothing.png")
        case "pipe":
            os.mkfifo(root / "p.png")
        case "outside":
            (root / "o").symlink_to(outside.parent)
        case "deep":
            (root / "/".join("d" * 50)).mkdir(parents=True)
