"""Pictures in a `.zip`, read where they are: nothing is unpacked."""

import functools
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from glow_jax.data.pictures import UnreadableError
from glow_jax.errors import GlowError, first_line, shown

# How zips are made by NumPy and by whatever packs pictures. The other methods expand one block of a
# file without any bound.
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: the archive.
        number: which of its members.
        name: its name there.
        stamp: when the archive was written, so that another one of its path is opened anew.
    """

    archive: Path
    number: int
    name: str
    stamp: int

    @property
    def ending(self) -> str:
        """The ending of its name, such as .png."""
        return PurePosixPath(self.name).suffix.lower()

    def read(self, most: int) -> bytes:
        """The content.

        Args:
            most: bytes that it may have, whatever the archive says.

        Raises:
            UnreadableError: it is damaged, encrypted or larger.
        """
        try:
            archive = _opened(self.archive, self.stamp, os.getpid())
            info = archive.infolist()[self.number]
            if info.compress_type not in METHODS:
                raise UnreadableError(f"it is compressed by method {info.compress_type}")
            content = bytearray()
            with archive.open(info) as stream:
                while chunk := stream.read(_CHUNK):
                    content += chunk
                    if len(content) > most:
                        raise UnreadableError(f"it has more than {most:,} bytes")
        except UnreadableError:
            raise
        except Exception as error:  # zipfile raises anything: it is damaged, or encrypted
            raise UnreadableError(first_line(error)) from None
        return bytes(content)

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"


# An open file must not be shared with another process, which would move its place.
@functools.lru_cache(maxsize=4)
def _opened(path: Path, stamp: int, process: int) -> zipfile.ZipFile:
    del stamp, process
    return zipfile.ZipFile(path)


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


def members(path: Path) -> list[tuple[tuple[str, ...], Member, zipfile.ZipInfo]]:
    """The files of an archive that are not hidden, by the parts of their names.

    A single folder around all of them is left out of the parts.

    Raises:
        GlowError: it cannot be read.
    """
    with open_zip(path) as archive:
        files, stamp = [], path.stat().st_mtime_ns
        for number, info in enumerate(archive.infolist()):
            parts = PurePosixPath(info.filename.replace("\\", "/")).parts
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
            if parts and not info.is_dir() and not hidden:
                files.append((parts, Member(path, number, info.filename, stamp), info))
    while files and all(len(parts) > 1 and parts[0] == files[0][0][0] for parts, _, _ in files):
        if files[0][0][0].lower() == "train":
            break
        files = [(parts[1:], member, info) for parts, member, info in files]
    return sorted(files, key=lambda file: file[0])
