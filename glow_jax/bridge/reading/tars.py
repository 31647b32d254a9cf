"""Tar archives whose parts are read where they lie; compressed ones are unpacked once, in memory.

Their headers are read here, and not by `tarfile`, which takes whatever memory a header asks for.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO

from glow_jax.bridge.reading.archive import unpacking
from glow_jax.bridge.reading.budget import Budget, check_expansion, first_sentence
from glow_jax.bridge.reading.places import Region
from glow_jax.errors import GlowError, shown

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 2**20
_LONGEST_EXTENSION = 2**16
_MOST_MEMBERS = 100_000
_SPARSE = b"GNU.sparse"
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_WITHOUT_CONTENT = (
    *_LINKS,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
)


class Tar:
    """The files of a tar archive that are wanted."""

    def __init__(
        self, file: IO[bytes], name: str, is_wanted: Callable[[str], bool], budget: Budget
    ) -> None:
        """Find the files, and keep them in memory if the archive is compressed.

        Args:
            file: the archive, which stays open.
            name: its name, as it may stand in a message.
            is_wanted: tells by a file's name in the archive whether it is kept.
            budget: the memory that they may take.

        Raises:
            GlowError: it is no archive, is damaged, too large, or has a wanted file twice.
        """
        self.name = name
        self._regions: dict[str, Region | str] = {}  # or why there is none
        try:
            self._find(_Stream(file, name), is_wanted, budget)
        except GlowError:
            raise
        except Exception as error:  # a damaged archive can raise anything
            raise GlowError(f"{name} is a damaged archive: {first_sentence(error)}.") from error
        self.names = self._regions.keys()

    def open(self, name: str) -> Region:
        """A file, by its name in the archive.

        Raises:
            GlowError: it is a link, no regular file, or only points to the file itself.
        """
        region = self._regions[name]
        if isinstance(region, str):
            raise GlowError(region)
        return region.itself()

    def _find(self, stream: "_Stream", is_wanted: Callable[[str], bool], budget: Budget) -> None:
        for name, member in _members(stream):
            if not is_wanted(name) or member.isdir():
                continue
            title = f"{shown(name)} in {self.name}"
            if name in self._regions:
                raise GlowError(f"{title} is there twice: pack it once.")
            # A file may only be called as those are that are looked for.
            if member.type in _LINKS:
                self._regions[name] = (
                    f"{title} is a link, which is not followed: pack the file itself."
                )
            elif not member.isreg() or member.type == tarfile.GNUTYPE_SPARSE:
                self._regions[name] = f"{title} is no regular file: pack the file itself."
            else:
                self._regions[name] = stream.keep(member.size, title, budget)


class _Stream:
    """An archive from its beginning to its end; it is unpacked on the way if it is compressed."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)
        unpacked = unpacking(file)
        self._is_packed = unpacked is not None
        self._file = file if unpacked is None else unpacked
        self._name = name
        self.place = 0

    def read(self, size: int) -> bytes:
        """The next bytes; fewer at the end."""
        content = self._file.read(size)
        self.place += len(content)
        if self._is_packed:
            check_expansion(self.place, self._size, self._name)
        return content

    def skip(self, size: int) -> None:
        """Leave out bytes, which must be there."""
        if self._is_packed:
            for _ in self._chunks(size):
                pass
            return
        self.place += size
        if self.place > self._size:
            raise ValueError("it is cut short")
        self._file.seek(self.place)

    def keep(self, size: int, name: str, budget: Budget) -> Region:
        """The next bytes, where they lie, or in memory if they are unpacked; leave them out."""
        if not self._is_packed:
            region = Region(self._file, self.place, size, name)
            self.skip(size)
            return region
        kept = io.BytesIO()
        for chunk in self._chunks(size):
            budget.take(len(chunk), name)
            kept.write(chunk)
        return Region(kept, 0, size, name)

    def _chunks(self, size: int) -> Iterator[bytes]:
        while size > 0:
            chunk = self.read(min(_CHUNK, size))
            if not chunk:
                raise ValueError("it is cut short")
            size -= len(chunk)
            yield chunk


def _members(stream: _Stream) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The members with their names; the stream stands at the content, which may be left unread."""
    stated: dict[bytes, bytes] = {}  # by the extensions in front of the member
    for _ in range(_MOST_MEMBERS):
        header = stream.read(_BLOCK)
        if not header.strip(b"\0"):
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        if member.type == tarfile.XHDTYPE:
            stated |= _records(_extension(stream, member.size))
            continue
        if member.type == tarfile.GNUTYPE_LONGNAME:
            stated[b"path"] = _extension(stream, member.size).split(b"\0")[0]
            continue
        size = int(stated[b"size"]) if b"size" in stated else member.size
        if size < 0:
            raise ValueError("a member's size is negative")
        member.size = 0 if member.type in _WITHOUT_CONTENT else size
        if _SPARSE in stated:
            member.type = tarfile.GNUTYPE_SPARSE
        end = stream.place + _padded(member.size)
        name = (
            stated[b"path"].decode("utf-8", "surrogateescape") if b"path" in stated else member.name
        )
        yield str(PurePosixPath(name)), member
        stream.skip(end - stream.place)
        if member.type != tarfile.GNUTYPE_LONGLINK:
            stated = {}
    raise ValueError(f"it has more than {_MOST_MEMBERS} members")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _extension(stream: _Stream, size: int) -> bytes:
    """What an extended header holds."""
    if not 0 <= size <= _LONGEST_EXTENSION:
        raise ValueError(f"an extended header is to have {size} bytes")
    return stream.read(_padded(size))[:size]


def _records(content: bytes) -> dict[bytes, bytes]:
    """What a header of the form pax says of the name, the size and the form of the member.

    Whatever else it says is passed over, so that any number of headers takes no more memory.
    """
    records: dict[bytes, bytes] = {}
    place = 0
    while place < len(content):
        digits = content[place : content.index(b" ", place)]
        begin, end = place + len(digits) + 1, place + int(digits)
        if not begin < end <= len(content):
            raise ValueError("an extended header contradicts itself")
        key, _, value = content[begin : end - 1].partition(b"=")
        if key in (b"path", b"size"):
            records[key] = value
        elif key.startswith(_SPARSE):
            records[_SPARSE] = b""
        place = end
    return records
