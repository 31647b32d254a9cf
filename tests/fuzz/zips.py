"""Zip, tar and compressed files around something, and what may be wrong with them."""

import bz2
import functools
import gzip
import io
import lzma
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable

from .damage import NAMES, damage_bytes

Records = list[tuple[str, bytes]]
_METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
_SIZES = [0, 1, 2**20, 2**31, 2**32 - 1, 2**32 - 2]
_BOMB_BYTES = 64 * 2**20


def records_of(data: bytes) -> Records:
    """The files of a zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def to_zip(records: Records, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of files, which may have one name twice, or a name that no file has."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of doubled names
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in records:
                info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode())
                archive.writestr(info, content, method)
    return buffer.getvalue()


def change_record(data: bytes, ending: str, change: Callable[[bytes], bytes]) -> bytes:
    """A zip with a file changed, and its checksum with it."""
    records = records_of(data)
    return to_zip([(n, change(c) if n.endswith(ending) else c) for n, c in records])


def damage_zip(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A zip with a record, or what the directory says of it, changed; and how."""
    if rng.random() < 0.5:
        return _damage_directory(data, rng)
    records = records_of(data)
    number = rng.randrange(len(records))
    name, content = records[number]
    method = zipfile.ZIP_STORED
    how = rng.choice(["drop", "double", "content", "rename", "method", "bomb", "order", "add"])
    match how:
        case "drop":
            del records[number]
        case "double":
            records.append((name, damage_bytes(content, rng)[0]))
        case "content":  # the checksum fits
            records[number] = (name, damage_bytes(content, rng)[0])
        case "rename":
            records[number] = (rng.choice([*NAMES, name.upper(), f"x/{name}", "data.pkl"]), content)
        case "method":
            method = rng.choice(_METHODS[1:])
        case "bomb":
            return with_bomb(records, number, rng.choice(_METHODS[1:])), "bomb"
        case "order":
            records += [(name.rpartition("/")[0] + "/byteorder", rng.choice([b"big", b"x", b""]))]
        case "add":
            records.append((rng.choice([*NAMES, "data.pkl", "a/data.pkl"]), content))
    return to_zip(records, method), how


def with_bomb(records: Records, number: int, method: int) -> bytes:
    """A zip in which a file unpacks to much more than it has."""
    name, others = records[number][0].encode(), records[:number] + records[number + 1 :]
    packed, version, flags = _packed_zeros(method)
    sizes = (zlib.crc32(bytes(_BOMB_BYTES)), len(packed), _BOMB_BYTES, len(name), 0)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", version, flags, method, 0, 33, *sizes)
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", version, version, flags, method, 0, 33, *sizes, 0, 0, 0, 0, 0
    )
    return _joined(local + name + packed, entry + name, to_zip(others))


@functools.cache
def _packed_zeros(method: int) -> tuple[bytes, int, int]:
    """Packed zeros as they stand in a zip, the version that reads them, and the flags."""
    data = to_zip([("x", bytes(_BOMB_BYTES))], method)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (info,) = archive.infolist()
    begin = 30 + len(info.filename)
    return data[begin : begin + info.compress_size], info.extract_version, info.flag_bits


def _joined(first: bytes, entry: bytes, rest: bytes) -> bytes:
    """A zip whose first file is put before those of another."""
    with zipfile.ZipFile(io.BytesIO(rest)) as archive:
        start, members = archive.start_dir, archive.infolist()
    directory = bytearray(rest[start : rest.rfind(b"PK\5\6")])
    place = 0
    for _ in members:
        offset = struct.unpack_from("<L", directory, place + 42)[0]
        struct.pack_into("<L", directory, place + 42, offset + len(first))
        place += 46 + sum(struct.unpack_from("<3H", directory, place + 28))
    body, whole = first + rest[:start], entry + bytes(directory)
    end = struct.pack(
        *("<4s4H2LH", b"PK\5\6", 0, 0, len(members) + 1, len(members) + 1),
        *(len(whole), len(body), 0),
    )
    return body + whole + end


def _damage_directory(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A zip whose directory, or whose local headers, say something else."""
    signature = rng.choice([b"PK\1\2", b"PK\1\2", b"PK\3\4", b"PK\5\6"])
    places = [i for i in range(len(data) - 3) if data.startswith(signature, i)]
    if not places:
        return damage_bytes(data, rng)
    changed, begin = bytearray(data), rng.choice(places)
    # Where a field lies: version, flags, method, checksum, sizes, lengths, offset.
    fields = {
        b"PK\1\2": [(6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)],
        b"PK\3\4": [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)],
        b"PK\5\6": [(4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)],
    }
    offset, width = rng.choice(fields[signature])
    number = rng.choice([*_SIZES, 1, 8, 12, 14, 99, rng.getrandbits(8 * width)]) % 2 ** (8 * width)
    changed[begin + offset : begin + offset + width] = number.to_bytes(width, "little")
    return bytes(changed), f"directory {signature[2:].hex()} {offset}"


def pack(name: str, files: dict[str, bytes], rng: random.Random) -> tuple[str, bytes, str]:
    """Files in an archive, or one file compressed: the new name, the content, and how."""
    how = rng.choice(["zip", "tar", "gz", "bz2", "xz", "deflated", "tar.gz", "tar", "odd tar"])
    names = {n: rng.choice([n, n, f"a/{n}", f"./{n}", f"../{n}", f"/{n}"]) for n in files}
    records = [(names[n], content) for n, content in files.items()]
    if rng.random() < 0.2:
        extra = rng.choice([*NAMES, "x.pt", "optimizer.pt", "hparams.json", "._glow.pt"])
        records.append((extra, rng.choice([b"", b"{}", b"\x80", files[name]])))
    if how in ("gz", "bz2", "xz"):
        return f"{name}.{how}", COMPRESS[how](files[name]), how
    if how in ("zip", "deflated"):
        method = zipfile.ZIP_STORED if how == "zip" else rng.choice(_METHODS)
        return "a.zip", to_zip(records, method), how
    data = _to_tar(records, rng if how == "odd tar" else None)
    return ("a.tar.gz", gzip.compress(data, 1), how) if how == "tar.gz" else ("a.tar", data, how)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
}


def _to_tar(records: Records, rng: random.Random | None) -> bytes:
    """A tar archive, with a link, a device or a false size among its files where `rng` is given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in records:
            info = tarfile.TarInfo(name.replace("\0", "") or "x")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
            if rng is not None:
                other = tarfile.TarInfo(rng.choice(["b.pt", "hparams.json", "../x.pt"]))
                other.type = rng.choice(
                    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S"]
                )
                other.linkname = rng.choice(["/etc/passwd", name, "..", other.name])
                archive.addfile(other)
    return buffer.getvalue()
