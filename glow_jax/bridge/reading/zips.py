"""Zip archives: their members are unpacked in small chunks, and their CRC-32 is verified."""

import bz2
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

from glow_jax.bridge.reading.budget import Budget, first_sentence
from glow_jax.errors import GlowError, shown

_CHUNK = 2**20
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LARGEST_DIRECTORY = 2**26  # the published model's has 100,000 bytes
_LARGEST_DICTIONARY = 2**28  # four times what the strongest setting of xz uses


class Zip:
    """A zip archive that is open for reading."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Read the directory.

        Args:
            file: the archive, which stays open.
            name: its name, as it may stand in a message.

        Raises:
            GlowError: the directory is damaged.
        """
        self._file = file
        self.name = name
        try:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except Exception as error:  # a damaged directory can raise anything
            raise GlowError(
                f"{name} is not a PyTorch checkpoint, or it is damaged: its archive cannot be "
                f"opened: {first_sentence(error)}."
            ) from error
        self.members = {member.filename: member for member in members}
        """The files by name; of several with one name, the last."""

    def read(self, member: zipfile.ZipInfo, budget: Budget, *, is_part: bool = False) -> bytearray:
        """Unpack a file.

        Args:
            member: the file.
            budget: the memory that it may take.
            is_part: whether it is one tensor of many, which may be all zeros: it may then expand to
                a hundred times the whole archive, and not only a hundred times its own size.

        Raises:
            GlowError: it is damaged, encrypted, packed in an unknown way, or too large.
        """
        name = f"{shown(member.filename)} in {self.name}"
        packed_size = member.compress_size
        if is_part:
            packed_size = self._file.seek(0, io.SEEK_END)
        try:
            content = budget.join(self._unpack(member), name, packed_size)
        except GlowError:
            raise
        except Exception as error:  # a damaged stream can raise anything
            raise GlowError(f"{name} cannot be read: {first_sentence(error)}.") from error
        if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
            raise GlowError(
                f"{name} cannot be read: its CRC-32 or its length is not the one in the archive's "
                "directory, so some of its bytes have changed; fetch it again, or save it again if "
                "torch.save was told to write no CRC-32."
            )
        return content

    def _unpack(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        if member.flag_bits & 1:
            raise ValueError("it is encrypted")
        self._file.seek(member.header_offset)
        header = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
        if header[0] != b"PK\x03\x04":
            raise ValueError("it does not begin where the directory says")
        self._file.seek(header[-2] + header[-1], 1)
        left = member.compress_size
        if member.compress_type == zipfile.ZIP_STORED:
            while left > 0 and (chunk := self._file.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
            return
        if member.compress_type == zipfile.ZIP_LZMA:
            version_and_size = self._file.read(4)
            properties = self._file.read(int.from_bytes(version_and_size[2:], "little"))
            left -= len(version_and_size) + len(properties)
            unpacker = _lzma_unpacker(properties)
        elif member.compress_type == zipfile.ZIP_BZIP2:
            unpacker = bz2.BZ2Decompressor()
        elif member.compress_type == zipfile.ZIP_DEFLATED:
            unpacker = _Inflater()
        else:
            raise ValueError(f"it is packed by method {member.compress_type}, which is unknown")
        while not unpacker.eof:
            packed = b""
            if unpacker.needs_input:
                packed = self._file.read(min(_CHUNK, left)) if left > 0 else b""
                left -= len(packed)
                if not packed:
                    return
            yield unpacker.decompress(packed, _CHUNK)


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a directory that is said to be larger than that of any checkpoint, before it is read.

    Raises:
        ValueError: it is.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - 70_000))  # a comment of 65,535 bytes at most, and the records before it
    tail = file.read()
    for signature, place, width in ((b"PK\5\6", 12, 4), (b"PK\6\6", 40, 8)):
        begin = tail.rfind(signature)
        size = int.from_bytes(tail[begin + place : begin + place + width], "little")
        if begin >= 0 and size > _LARGEST_DIRECTORY and size != 2**32 - 1:
            raise ValueError(f"its directory is to have {size} bytes")


class _Unpacker(Protocol):
    """What the decompressors of bz2 and lzma offer."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class _Inflater:
    """A decompressor of raw deflate streams with the interface of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def _lzma_unpacker(properties: bytes) -> _Unpacker:
    """The decompressor by the five bytes that describe an LZMA stream in a zip."""
    if len(properties) != 5:
        raise ValueError("its LZMA settings are damaged")
    dictionary = int.from_bytes(properties[1:], "little")
    if dictionary > _LARGEST_DICTIONARY:
        raise ValueError(f"its LZMA dictionary has {dictionary} bytes, too many for any weights")
    bits, lc = divmod(properties[0], 9)
    pb, lp = divmod(bits, 5)
    settings = {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": dictionary}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings])
