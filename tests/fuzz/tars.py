"""Tar archives of a folder, and what may be wrong with them."""

import random
import tarfile
from typing import Literal

from .damage import NAMES, damage_bytes
from .zips import COMPRESS

_FORMATS: list[Literal[0, 1, 2]] = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
_TYPES = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
_TYPES += [tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE]
_BLOCK = tarfile.BLOCKSIZE


def to_tar(files: dict[str, bytes], rng: random.Random) -> tuple[str, bytes, list[str]]:
    """Files in a tar archive, compressed or not: its name, its content, and what was done to it."""
    folder = rng.choice(
        ["logs/abl", "logs/abl", ".", "", "/", "..", "a/../../b", "/etc", "l" * 120]
    )
    damage = []
    members = [_member(f"{folder}/{name}", content, rng) for name, content in files.items()]
    if rng.random() < 0.25:
        damage.append(_damage_members(members, rng))
    content = b"".join(members) + bytes(2 * _BLOCK)
    ending = rng.choice(["", "", "", "gz", "bz2", "xz"])
    if ending:
        content = COMPRESS[ending](content)
    if rng.random() < 0.05:
        content, how = damage_bytes(content, rng)
        damage.append(f"{how} of the archive")
    name = rng.choice(["abl.tar", "abl.tar", "abl"]) + (f".{ending}" if ending else "")
    return name, content, [ending or "tar", *damage]


def _member(name: str, content: bytes, rng: random.Random, **more: object) -> bytes:
    """A member as it stands in an archive: its headers and its content, which is filled up."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in more.items():
        setattr(info, attribute, value)
    try:
        headers = info.tobuf(rng.choice(_FORMATS), errors="surrogateescape")
    except ValueError:  # the oldest format has no place for it
        headers = info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    return headers + content.ljust(-(-len(content) // _BLOCK) * _BLOCK, b"\0")


def _damage_members(members: list[bytes], rng: random.Random) -> str:
    """A member that is a link, is there twice, or whose headers are untrue though they fit."""
    place = rng.randrange(len(members))
    member = members[place]
    info = tarfile.TarInfo.frombuf(member[:_BLOCK], "utf-8", "surrogateescape")
    how = rng.choice(["type", "twice", "other", "size", "header", "extension", "drop", "order"])
    match how:
        case "type":
            kind = rng.choice(_TYPES)
            link = rng.choice(["/etc/passwd", info.name, "..", "../outside/precious.json"])
            members[place] = _member(info.name, b"", rng, type=kind, linkname=link)
        case "twice":
            members.append(member)
        case "other":
            name = rng.choice([*NAMES[4:], "b.ckpt.index", "._a.ckpt.index", "x/train.txt", "a/"])
            members.insert(
                place, _member(name.replace("\0", ""), rng.choice([b"", b"{}", member]), rng)
            )
        case "size":
            size = rng.choice([0, 1, info.size + 1, info.size + _BLOCK, 2**30, 2**33 - 1, 2**62])
            changed = tarfile.TarInfo(info.name)
            changed.size = size
            members[place] = changed.tobuf(tarfile.GNU_FORMAT) + member[_BLOCK:]
        case "header":
            members[place] = damage_bytes(member[:_BLOCK], rng)[0] + member[_BLOCK:]
        case "extension":
            records = [b"11 size=-5\n", b"99 path=a\n", b"x", b"", b"9" * 5000 + b" a=b\n"]
            records += [b"28 path=../outside/precious\n", b"22 GNU.sparse.major=1\n"]
            records += [b"16 size=1000000\n", b"12 path=\xff\xfe\n", b"8 path=\n", bytes(2**17)]
            kind = rng.choice([tarfile.XHDTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
            extension = _member("pax", rng.choice(records), rng, type=kind)
            members[place] = extension * rng.choice([1, 1, 50]) + member
        case "drop":
            del members[place]
        case "order":
            rng.shuffle(members)
    return f"{how} of the members"
