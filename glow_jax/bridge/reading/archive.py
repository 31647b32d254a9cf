"""What lies in a file: a checkpoint, or an archive of one; nothing is unpacked to disk."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, TypeVar, cast

from glow_jax.bridge.reading.budget import Budget, first_sentence
from glow_jax.bridge.reading.places import refuse_pointer
from glow_jax.bridge.reading.settings import LARGEST
from glow_jax.bridge.reading.zips import Zip
from glow_jax.errors import GlowError, shown

HPARAMS = "hparams.json"

_WEIGHTS = (".pt", ".pth", ".pkl", ".pkg", ".ckpt", ".safetensors", ".bin", ".pt.tar", ".pth.tar")
_KINDS = {"weights": "weights", "optimizer": "optimizers' states", "hparams": "settings"}
_COMPRESSED: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb")),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_CHUNK = 2**20
_T = TypeVar("_T")


class Contents:
    """The files of an archive that matter, in memory, each with its name for messages."""

    def __init__(self) -> None:
        """Nothing is found yet."""
        self.found: dict[str, tuple[IO[bytes], str]] = {}

    def add(self, kind: str, content: bytearray, name: str) -> None:
        """Keep a file of the kind "weights", "optimizer" or "hparams".

        Raises:
            GlowError: it only points to the file itself.
        """
        refuse_pointer(content, name)
        self.found[kind] = (io.BytesIO(content), name)


def kind_of(name: str) -> str | None:
    """What a file in an archive is, by its name: weights, optimizer, hparams, or nothing."""
    path = PurePosixPath(name.lower())
    if "__macosx" in path.parts or path.name.startswith("._"):
        return None
    if path.name == HPARAMS:
        return "hparams"
    if path.name.endswith(_WEIGHTS):
        return "optimizer" if "optim" in path.name else "weights"
    return None


def choose(members: Iterable[_T], name_of: Callable[[_T], str], archive: str) -> dict[str, _T]:
    """The one file of weights, and at most one each of "optimizer" and "hparams".

    Raises:
        GlowError: there is no file of weights, or several.
    """
    found: dict[str, list[_T]] = {}
    for member in members:
        if kind := kind_of(name_of(member)):
            found.setdefault(kind, []).append(member)
    for kind, those in found.items():
        if len(those) > 1:
            names = ", ".join(shown(name_of(member)) for member in those[:8])
            raise GlowError(
                f"{archive} holds several files of {_KINDS[kind]}: {names}; give the right one."
            )
    if "weights" not in found:
        raise GlowError(
            f"{archive} is an archive without a {', '.join(_WEIGHTS[:-1])} or {_WEIGHTS[-1]} file "
            "of weights."
        )
    return {kind: those[0] for kind, those in found.items()}


def read_zip_archive(archive: Zip, budget: Budget) -> Contents:
    """The files that matter of a zip.

    Raises:
        GlowError: it is damaged, too large, or there is no one file of weights.
    """
    if archive.members and all(name.lower().endswith(".npy") for name in archive.members):
        raise GlowError(
            f"{archive.name} holds arrays of NumPy (.npz), which is no checkpoint of PyTorch: save "
            "the weights by torch.save or as safetensors."
        )
    contents = Contents()
    chosen = choose(archive.members.values(), lambda member: member.filename, archive.name)
    for kind, member in chosen.items():
        name = f"{shown(member.filename)} in {archive.name}"
        if kind == "hparams":
            _check_hparams_size(member.file_size, name)
        contents.add(kind, archive.read(member, budget), name)
    return contents


def is_tar(file: IO[bytes]) -> bool:
    """Whether a file begins with the header of a tar archive; it is left at its beginning."""
    header = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    try:
        tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def read_tar_archive(file: IO[bytes], name: str, budget: Budget) -> Contents:
    """The files that matter of a tar archive, which is not compressed.

    Raises:
        GlowError: it is damaged, too large, or there is no one file of weights.
    """
    contents = Contents()
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = [member for member in archive if member.isreg()]
            for kind, member in choose(members, lambda member: member.name, name).items():
                inside = f"{shown(member.name)} in {name}"
                if kind == "hparams":
                    _check_hparams_size(member.size, inside)
                stream = archive.extractfile(member)
                if stream is not None:
                    contents.add(kind, budget.join(_chunks(stream), inside), inside)
    except GlowError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise GlowError(f"{name} is a damaged archive: {first_sentence(error)}.") from error
    return contents


def decompress(file: IO[bytes], name: str, size: int, budget: Budget) -> IO[bytes]:
    """The content of a file that gzip, bzip2 or xz compressed, in memory; any other as it is.

    Args:
        file: the file, at its beginning.
        name: its name, as it may stand in a message.
        size: the number of its bytes.
        budget: the memory that it may take.

    Raises:
        GlowError: it is damaged, or too large.
    """
    stream = unpacking(file)
    if stream is None:
        return file
    try:
        return io.BytesIO(budget.join(_chunks(stream), name, size))
    except GlowError:
        raise
    except Exception as error:  # a damaged stream can raise anything
        raise GlowError(f"{name} is damaged: {first_sentence(error)}.") from error


def unpacking(file: IO[bytes]) -> IO[bytes] | None:
    """A stream of what gzip, bzip2 or xz compressed, unpacked as it is read; None for other files.

    Args:
        file: the file, which is left at its beginning.
    """
    begin = file.read(6)
    file.seek(0)
    opened = (opened for magic, opened in _COMPRESSED.items() if begin.startswith(magic))
    return next((unpacked(file) for unpacked in opened), None)


def _check_hparams_size(size: int, name: str) -> None:
    """Refuse settings that are none, before they are read."""
    if size > LARGEST:
        raise GlowError(f"{name} has {size} bytes: it is no list of settings.")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk
