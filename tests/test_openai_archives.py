"""Archives of the checkpoints of openai/glow: read where they lie, and never unpacked to disk."""

import io
import math
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from openai_cases import FULL
from openai_files import check_same, entry, header, masked, read_all, refusal, table

from glow_jax import GlowError
from glow_jax.bridge.from_openai import convert
from glow_jax.bridge.reading.openai_files import open_openai

ENDINGS = ("index", "data-00000-of-00001")
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
        (
            [(member("x/" + info.name), c) for info, c in BOTH] + BOTH,
            "unpack it and give the .index",
        ),
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


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", ["logs/x.index", "train.txt", "x.data-00000-of-00001"])
def test_what_is_only_called_so_is_not_looked_at(name: str, kind: bytes, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", [(member(name, kind), b""), *BOTH])
    with open_openai(path) as file:
        assert file.read("a").tolist() == [1, 1, 1, 1]
        assert file.settings is None


@pytest.mark.parametrize("folder", ["", "logs/", "logs/abl/more/"])
def test_the_only_settings_of_an_archive(folder: str, tmp_path: Path) -> None:
    there = [(member("logs/abl/" + info.name), content) for info, content in BOTH]
    settings = [(member(f"{folder}train.txt"), b'{"a": 1}\n')]
    with open_openai(packed(tmp_path / "a.tar", there + settings)) as file:
        assert file.settings == {"a": 1}
    beside = [(member("logs/abl/test.txt"), b'{"a": 2}\n')]
    with open_openai(packed(tmp_path / "b.tar", there + settings + beside)) as file:
        assert file.settings == {"a": 2}
    others = [(member("other/train.txt"), b'{"a": 3}\n')]
    with open_openai(packed(tmp_path / "c.tar", there + settings + others)) as file:
        assert file.settings is None
    more = [(member("logs/x.index"), b"x")]  # whose settings they may be
    with open_openai(packed(tmp_path / "d.tar", there + settings + more)) as file:
        assert file.settings is None


def test_slots_of_a_compressed_archive_are_counted_half_by_half(tmp_path: Path) -> None:
    """The unpacked file, weights and averages are held; one half of the slots at a time."""
    with open_openai(FULL) as file:
        described = 1000 * (len(file.variables) + 1)
        weights = sum(
            4 * math.prod(variable.shape)
            for name, variable in file.variables.items()
            if name.startswith("model/") and not name.endswith("/ExponentialMovingAverage")
        )
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(FULL, "abl")
    files = sum((FULL / f"model_best_loss.ckpt.{end}").stat().st_size for end in ENDINGS)
    index = (FULL / "model_best_loss.ckpt.index").stat().st_size
    memory = files + 2 * index + described + 3 * weights + 10_000  # the settings, too
    assert memory < files + 2 * index + described + 4 * weights
    found = convert(tmp_path / "a.tar.gz", memory=memory)
    assert found.optimizer_state is not None
    assert found.average is not None
