"""Archives of the checkpoints of openai/glow: read where they lie, and never unpacked to disk."""

import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from openai_files import check_same, entry, header, masked, read_all, refusal, table

from glow_jax import GlowError
from glow_jax.bridge.reading.openai_files import open_openai

SMALL = Path(__file__).parent / "data" / "openai" / "e_conditional_5bit"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_is_read_without_unpacking(mode: str, form: int, tmp_path: Path) -> None:
    path = tmp_path / "logs.tar"
    folder = f"./logs/{'long_name_' * 9}/abl"  # longer than a header's 100 bytes
    with tarfile.open(path, mode, format=form) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        archive.add(SMALL, folder)
    with open_openai(path) as file, open_openai(SMALL) as unpacked:
        assert file.settings == unpacked.settings
        assert file.variables == unpacked.variables
    check_same(read_all(path), read_all(SMALL))
    assert [path] == list(tmp_path.iterdir())


def packed(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


CONTENT = np.ones(4, np.float32).tobytes()
INDEX = table([(b"", header()), (b"a", entry(1, [4], 0, 16, masked(CONTENT)))])
BOTH = [
    (member("a.ckpt.index"), INDEX),
    (member("a.ckpt.data-00000-of-00001"), CONTENT),
]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([BOTH[0], (member(BOTH[1][0].name, tarfile.SYMTYPE), b"")], "is a link"),
        ([BOTH[0], (member(BOTH[1][0].name, tarfile.LNKTYPE), b"")], "is a link"),
        ([BOTH[0], (member(BOTH[1][0].name, tarfile.FIFOTYPE), b"")], "is no regular file"),
        ([*BOTH, (member("./a.ckpt.index"), b"x")], "is there twice"),
        ([BOTH[0]], "lacks a.ckpt.data-00000-of-00001"),
        ([BOTH[1]], "holds no checkpoint"),
        ([(member("x/" + info.name), c) for info, c in BOTH] + BOTH, "holds 2 checkpoints"),
        ([(member("a", tarfile.XHDTYPE), bytes(2**17)), *BOTH], "extended header is to have"),
        ([(member("a", tarfile.XHDTYPE), b"99 path=a\n"), *BOTH], "contradicts itself"),
        ([(member("a", tarfile.XHDTYPE), b"11 size=-5\n"), *BOTH], "size is negative"),
    ],
)
def test_a_hostile_archive(
    members: list[tuple[tarfile.TarInfo, bytes]], message: str, mode: str, tmp_path: Path
) -> None:
    assert message in refusal(packed(tmp_path / "a.tar", members, mode))


def test_names_that_lead_out_of_an_archive_are_only_names(tmp_path: Path) -> None:
    members = [(member(f"/../../{info.name}"), content) for info, content in BOTH]
    with open_openai(packed(tmp_path / "a.tar", members)) as file:
        assert file.read("a").tolist() == [1, 1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_any_number_of_extended_headers_takes_no_more_memory(tmp_path: Path) -> None:
    headers = []
    for number in range(300):
        record = f" k{number:03d}=".encode() + b"x" * 60_000 + b"\n"
        record = f"{len(record) + 5}".encode() + record
        headers.append((member("a", tarfile.XHDTYPE), record))
    path = packed(tmp_path / "a.tar", [*headers, *BOTH])
    tracemalloc.start()
    try:
        with open_openai(path) as file:
            assert file.read("a").tolist() == [1, 1, 1, 1]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["noise.png", "a.ckpt.data-00000-of-00001"])
def test_a_bomb(name: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", [(member(name), bytes(10**7))], "w:gz")
    assert "unpacks to more than 100 times its size" in refusal(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_truncated_archive(mode: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", BOTH, mode)
    refused = 0
    for size in range(path.stat().st_size, 0, -7 if mode != "w" else -97):
        os.truncate(path, size)
        try:
            found = read_all(path)
        except GlowError:
            refused += 1
        else:  # what is cut off is behind the values
            assert not refused
            assert found["a"].tolist() == [1, 1, 1, 1]
    assert refused
