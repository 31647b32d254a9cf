"""Damaged and hostile files of openai/glow: each is refused in one sentence, at no great cost."""

import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from openai_files import (
    block,
    closed,
    constant,
    ending,
    entry,
    field,
    header,
    masked,
    node,
    read_all,
    refusal,
    shape_message,
    table,
    tensor,
    varint,
    write_bundle,
    write_graph,
)

from glow_jax import GlowError
from glow_jax.bridge.reading import bundle, graph
from glow_jax.bridge.reading.openai_files import open_openai

ARRAYS = {f"model/{i}/b": np.arange(i + 1, dtype=np.float32) for i in range(4)}
ONES = {"a": np.ones(4, np.float32)}
CONTENT = ONES["a"].tobytes()
HEADER = (b"", header())


def variable(
    shape: tuple[int, ...] = (4,), dtype: int = 1, offset: int = 0, size: int = 16, shard: int = 0
) -> bytes:
    return entry(dtype, shape, offset, size, masked(CONTENT), shard)


def checkpoint(index: bytes, folder: Path) -> Path:
    (folder / "a.ckpt.index").write_bytes(index)
    (folder / "a.ckpt.data-00000-of-00001").write_bytes(CONTENT * 4)
    return folder


def one_block(content: bytes, kind: int = 0, handles: list[bytes] | None = None) -> bytes:
    """A table of one block with the wrong content, or with the wrong places of blocks."""
    block_of = closed(content, kind)
    handles = handles or [varint(0) + varint(len(content))]
    return block_of + ending(len(block_of), [(b"%d" % i, h) for i, h in enumerate(handles)])


def test_every_flip_in_an_index_is_found(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "a.ckpt", ARRAYS, block_size=40)
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        refusal(path)


def test_every_flip_in_the_values_is_found(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.ckpt", ARRAYS)
    path = tmp_path / "a.ckpt.data-00000-of-00001"
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert "does not have the CRC-32C that the index states" in refusal(path)


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
def test_every_truncation_is_found(ending: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.ckpt", ARRAYS)
    path = tmp_path / f"a.ckpt.{ending}"
    for size in range(path.stat().st_size - 1, -1, -1):
        os.truncate(path, size)
        refusal(path)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    arrays = {"a": np.ones(10**5, np.float32)}
    write_bundle(tmp_path / "a.ckpt", arrays)
    with open_openai(tmp_path) as file:
        os.truncate(tmp_path / "a.ckpt.data-00000-of-00001", 1000)
        with pytest.raises(GlowError, match="ends before its byte 400000"):
            file.read("a")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(b"a", variable((10**18,)))], "'a' has 16 bytes for float32 of shape"),
        ([(b"a", variable((10**18,), size=4 * 10**18))], "has 64 bytes, but the index places 'a'"),
        ([(b"a", variable((-1,)))], r"has shape \(-1,\)"),
        ([(b"a", variable((1,) * 100))], "more than 8 axes"),
        ([(b"a", variable(offset=60))], "places 'a' at 60 to 76: it is cut short"),
        ([(b"a", variable(offset=-4))], "'a' lies at -4 of file 0"),
        ([(b"a", variable(shard=1))], "'a' lies at 0 of file 1"),
        ([(b"a", variable()), (b"b", variable(offset=8))], "'b' and 'a' on the same bytes"),
        ([(b"a", variable()), (b"b", variable())], "'b' and 'a' on the same bytes"),
        ([(b"a", variable(dtype=42))], "never have .unknown 42"),
        ([(b"a", variable(dtype=7))], "never have .string"),
        ([(b"b", variable()), (b"a", variable(offset=16))], "not in order"),
        ([(b"a", variable()), (b"a", variable(offset=16))], "one stands there twice"),
        ([(b"a", variable() + field(7, b""))], "'a' is stored in slices"),
        ([(b"a", b"\x0b" * 1000)], "wire type 3"),
        ([(b"a", b"\x08" + b"\x80" * 20)], "more than 64 bits"),
        ([(b"a", b"\x12\xff\xff\x01")], "field 2 ends behind its message"),
        ([(b"\xff\xfe", variable())], "can't decode"),
        ([(b"n" * 10**6, variable())], "a name has more than 1000 bytes"),
    ],
)
def test_an_impossible_variable(
    entries: list[tuple[bytes, bytes]], message: str, tmp_path: Path
) -> None:
    assert re.search(message, refusal(checkpoint(table([HEADER, *entries]), tmp_path)))


GOOD = block([HEADER, (b"a", variable())])
ALONE = b"\0\0\0\0\1\0\0\0"  # the list of restarts of a block with one


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (table([(b"a", variable())]), "lacks the entry about the whole"),
        (table([(b"", header(endianness=1))]), "big end first"),
        (table([(b"", header(shards=10**9))]), "1000000000 files of values"),
        (table([(b"", header(shards=2)), (b"a", variable())]), "lacks a.ckpt.data-00000-of-00002"),
        (one_block(GOOD, kind=1), "compressed by Snappy"),
        (one_block(GOOD, kind=9), "compressed in the way 9"),
        (one_block(GOOD[:-4] + b"\xff" * 4), "list of restarts is longer"),
        (one_block(b"\5\1\0a" + ALONE), "an entry's length is impossible"),
        (one_block(b"\0\x7f\0a" + ALONE), "an entry's length is impossible"),
        (one_block(b"\x80" * 20 + ALONE), "more than 64 bits"),
        (one_block(GOOD, handles=[varint(0) + varint(len(GOOD))] * 1000), "do not follow"),
        (one_block(GOOD, handles=[varint(len(GOOD) + 5) + varint(8)]), "do not follow"),
        (one_block(GOOD, handles=[varint(0) + varint(10**9)]), "ends behind the file"),
        (b"", "does not end as a table does"),
        (b"<html>" * 100, "does not end as a table does"),
        (bytes(2**24 + 1), "has 16777217 bytes"),
    ],
)
def test_an_impossible_index(index: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(checkpoint(index, tmp_path))


def test_too_many_variables_or_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [HEADER, *((b"%06d" % i, b"") for i in range(50_000))]
    assert "more than 50000 entries" in refusal(checkpoint(table(many), tmp_path))
    monkeypatch.setattr(bundle, "_MOST_FIELDS", 100)
    index = table([HEADER, (b"a", field(1, 1) * 200)])
    assert "more than 100 fields" in refusal(checkpoint(index, tmp_path))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("out", "leads out of its folder"),
        ("dangling", "cannot be opened"),
        ("circle", "cannot be opened"),
        ("pipe", "is no regular file"),
        ("folder", "is no regular file"),
    ],
)
@pytest.mark.parametrize("name", ["a.ckpt.index", "a.ckpt.data-00000-of-00001"])
def test_what_is_no_file_of_the_folder(name: str, kind: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "stranger"
    folder.mkdir()
    write_bundle(folder / "a.ckpt", ONES)
    path = folder / name
    shutil.move(path, tmp_path / name)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"out": tmp_path / name, "dangling": folder / "none", "circle": path}
        path.symlink_to(targets[kind])
    assert message in refusal(folder)


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    index = write_bundle(tmp_path / "a.ckpt", ONES)
    index.rename(tmp_path / "kept")
    index.symlink_to("kept")
    with open_openai(tmp_path) as file:
        assert file.read("a").tolist() == [1, 1, 1, 1]


def declared(shape: tuple[int, ...], values: bytes, dtype: int = 1) -> bytes:
    return constant("a", field(1, dtype) + field(2, shape_message(shape)) + values, dtype)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (declared((10**18,), field(5, bytes(4))), "is to have shape"),
        (declared((1,), field(5, bytes(8))), "more values than its shape"),
        (declared((3,), field(4, bytes(4))), "'a' has 4 bytes for float32"),
        (declared((3,), field(5, bytes(5))), "its values are cut short"),
        (declared((1,), field(7, varint(2**40)), 3), "which is no int32"),
        (declared((2,), field(7, b"\1" * 5), 3), "has too many values"),
        (declared((1,), field(6, bytes(8)), 2), "of another kind"),
        (declared((-3,), b""), "has shape"),
        (declared((1,) * 100, b""), "more than 8 axes"),
        (constant("a", tensor(ONES["a"])) * 2, "'a' is there twice"),
        (node("a", "Const"), "'a' has no value"),
        (node("a", "Add"), "holds no constants"),
        (constant("n" * 2000, tensor(ONES["a"])), "a name has more than 1000 bytes"),
        (b"\x0b" * 1000, "wire type 3"),
        (b"\x0a\xff\xff\xff\xff\x7f", "ends behind its message"),
        (b"\x0a" + b"\x80" * 30, "more than 64 bits"),
        (b"\0" * 100, "a field has the number 0"),
        (b"\x08\x01", "no frozen graph"),
        (b"<html>" * 100, "no frozen graph"),
        (b"", "is empty"),
    ],
)
def test_an_impossible_graph(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    assert message in refusal(path)


def test_a_graph_of_too_many_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_MOST_FIELDS", 1000)
    path = tmp_path / "graph.pb"
    for content in (b"\x0a\0" * 1001, field(1, b"\x1a\0" * 1001)):
        path.write_bytes(content)
        assert "more than 1000 fields" in refusal(path)


def test_one_value_does_not_stand_for_a_large_tensor(tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    path.write_bytes(declared((2000, 2000), field(5, bytes(4))))
    assert "unpacks to more than 100 times its size" in refusal(path)


def test_a_constant_s_values_twice(tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    path.write_bytes(declared((1,), field(4, bytes(8)) + field(4, bytes(4))))
    assert "its values do not fit its shape" in refusal(path)


def test_flips_and_truncations_of_a_graph_end_in_a_sentence(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = write_graph(tmp_path / "graph.pb", ARRAYS)
    content = path.read_bytes()
    flips = [(place, 1 << rng.randrange(8)) for place in range(len(content))]
    wrong = [content[:p] + bytes([content[p] ^ bit]) + content[p + 1 :] for p, bit in flips]
    refused = 0
    for damaged in wrong + [content[:size] for size in range(1, len(content))]:
        path.write_bytes(damaged)
        try:
            read_all(path)
        except GlowError:  # whatever else is raised is a fault
            refused += 1
    assert refused > len(content)  # a graph has no checksum: its values and names may be any
