"""Pictures in a `.zip`, read where they are: nothing is unpacked."""

import functools
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from glow_jax.data.decoding import TooLargeError, UnreadableError
from glow_jax.errors import GlowError, first_line, shown

# How zips are made by NumPy and by whatever packs pictures. The other methods expand one block of a
# file without any bound.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# Deflate can shrink bytes 1032 times where all are the same; pictures of any kind, a tenth of it.
_MOST_EXPANDED = 500
_WORTH_A_QUESTION = 1 << 26
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: the archive.
        number: which of its members.
        name: its name there.
        size: its bytes, as the archive says.
        stamp: when the archive was written, so that another one of its path is opened anew.
    """

    archive: Path
    number: int
    name: str
    size: int
    stamp: int

    @property
    def ending(self) -> str:
        """The ending of its name, such as .png."""
        return PurePosixPath(self.name).suffix.lower()

    def read(self, most: float) -> bytes:
        """The content.

        Args:
            most: bytes that it may have.

        Raises:
            TooLargeError: it has more.
            UnreadableError: it is damaged, encrypted, or expands as no picture does.
        """
        if self.size > most:
            raise TooLargeError(f"its {self.size / 1e9:.2g} GB are more than a picture may have")
        content = io.BytesIO()  # which gives its content without a copy
        for chunk in self.chunks():
            content.write(chunk)
        return content.getvalue()

    def chunks(self) -> Iterator[bytes]:
        """The content, piece by piece; errors as for `read`."""
        try:
            archive = _opened(self.archive, self.stamp, os.getpid())
            info = archive.infolist()[self.number]
            check_member(info, info.file_size)
            with archive.open(info) as stream:  # which ends at the size that the archive says
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except Exception as error:  # zipfile raises anything: it is damaged, or encrypted
            raise UnreadableError(first_line(error)) from None

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"


# An open file must not be shared with another process, which would move its place.
@functools.lru_cache(maxsize=4)
def _opened(path: Path, stamp: int, process: int) -> zipfile.ZipFile:
    del stamp, process
    return zipfile.ZipFile(path)


def check_member(info: zipfile.ZipInfo, size: int) -> None:
    """Raise `GlowError` where a member is packed as no honest file of so many bytes is."""
    if info.flag_bits & 1:
        raise GlowError("it is encrypted")
    if info.compress_type not in _METHODS:
        raise GlowError(f"it is compressed by method {info.compress_type}, which is not read")
    packed = max(info.compress_size, 1)
    if size > _WORTH_A_QUESTION and size > _MOST_EXPANDED * packed:
        raise GlowError(
            f"{packed:,} bytes would expand to {size / 1e9:.2g} GB, as no pictures do: save it "
            "uncompressed"
        )


def is_hidden(name: str) -> bool:
    """Whether systems hide a file or a folder of a name, or put it there themselves."""
    return name.startswith(".") or name == "__MACOSX"


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open an archive, or raise `GlowError` in one sentence."""
    if not path.is_file():
        kind = "is no regular file" if path.exists() else "does not exist"
        raise GlowError(f"{shown(path)} {kind}: give the path of a file.")
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises anything of a damaged directory
        raise GlowError(
            f"{shown(path)} cannot be read as an archive: {first_line(error)}."
        ) from None


File = tuple[tuple[str, ...], Member, int]
"""The parts of a member's name, the member, and its checksum."""


def members(path: Path) -> list[File]:
    """The files of an archive that are not hidden, by the parts of their names.

    Raises:
        GlowError: it cannot be read.
    """
    with open_zip(path) as archive:
        files, stamp = [], path.stat().st_mtime_ns
        for number, info in enumerate(archive.infolist()):
            parts = PurePosixPath(info.filename.replace("\\", "/")).parts
            if parts and not info.is_dir() and not any(map(is_hidden, parts)):
                member = Member(path, number, info.filename, info.file_size, stamp)
                files.append((parts, member, info.CRC))
    return sorted(files, key=lambda file: file[0])
