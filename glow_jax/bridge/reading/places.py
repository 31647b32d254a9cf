"""Where a stranger's bytes lie: files that a user names, those of a folder, and parts of files."""

import io
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from glow_jax.errors import GlowError, first_line, shown

# How the files begin that Git LFS leaves where it has not fetched the files themselves.
_POINTER = b"version https://git-lfs.github.com/spec/"


def open_file(path: Path) -> IO[bytes]:
    """Open the file that a user names.

    Raises:
        GlowError: it is missing, no regular file, or empty, or only points to the file itself.
    """
    if not path.exists():
        raise GlowError(f"There is no file {path}.")
    if not path.is_file():
        raise GlowError(f"{path} is no file; give the checkpoint itself.")
    if path.stat().st_size == 0:
        raise GlowError(f"{path} is empty: fetch it again.")
    file = path.open("rb")
    try:
        refuse_pointer(file.read(len(_POINTER)), shown(str(path), 200))
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def refuse_pointer(content: bytes | bytearray, name: str) -> None:
    """Refuse what Git LFS leaves in the place of a file that it has not fetched.

    Args:
        content: the content of a file, or its beginning.
        name: its name, as it may stand in a message.

    Raises:
        GlowError: it only points to the file itself.
    """
    if content.startswith(_POINTER):
        raise GlowError(
            f"{name} is a pointer of Git LFS and not the file itself: fetch the file by "
            "'git lfs pull', or download it anew."
        )


@dataclass(frozen=True)
class Region:
    """A file, or a part of one, which is open for reading.

    Attributes:
        file: the file that it lies in.
        begin: the place of its first byte there.
        size: the number of its bytes.
        name: its name, as it may stand in a message.
    """

    file: IO[bytes]
    begin: int
    size: int
    name: str

    def itself(self) -> "Region":
        """This file.

        Raises:
            GlowError: it only points to the file itself.
        """
        refuse_pointer(self.head(len(_POINTER)), self.name)
        return self

    def head(self, most: int) -> bytes:
        """Its first bytes, or all of them if there are not so many."""
        return bytes(self.read(0, min(most, self.size)))

    def read(self, offset: int, size: int) -> bytearray:
        """Some of its bytes.

        Raises:
            GlowError: the file has become shorter.
        """
        content = bytearray(size)
        self.file.seek(self.begin + offset)
        done = 0
        with memoryview(content) as view:
            while done < size and (count := _read_into(self.file, view[done:])):
                done += count
        if done < size:
            raise GlowError(f"{self.name} ends before its byte {offset + size}: fetch it again.")
        return content


class Folder:
    """The files of a folder, of which no link leads out."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        """List the names; nothing is opened yet.

        Args:
            path: the folder.
            opened: closes the files in the end.
        """
        self._path = path
        self._opened = opened
        self.name = shown(str(path), 200)
        self.names = set(os.listdir(path))

    def open(self, name: str) -> Region:
        """Open a file of the folder.

        Raises:
            GlowError: it cannot be opened, is a link out of the folder, a pipe or a device, or only
                points to the file itself.
        """
        path = self._path / name
        title = shown(str(path), 200)
        careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        binary = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self._path.resolve()):
                raise GlowError(
                    f"{title} is a link that leads out of its folder, which is not followed: put "
                    "the file itself in its place."
                )
            descriptor = os.open(real, careful | binary)
        except (OSError, RuntimeError) as error:  # the second is for links in a circle
            raise GlowError(f"{title} cannot be opened: {first_line(error)}.") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise GlowError(f"{title} is no regular file: put the file itself in its place.")
        file = self._opened.enter_context(os.fdopen(descriptor, "rb"))
        return Region(file, 0, status.st_size, title).itself()


def _read_into(file: IO[bytes], view: memoryview) -> int:
    """Read at most as many bytes as the view has; return their number."""
    if isinstance(file, io.BufferedIOBase | io.RawIOBase):
        return file.readinto(view) or 0
    content = file.read(len(view))
    view[: len(content)] = content
    return len(content)
