"""Files of openai/glow: what the original wrote is read exactly, wherever it lies."""

import json
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from openai_files import (
    check_same,
    constant,
    field,
    fixed32,
    read_all,
    shape_message,
    varint,
    write_bundle,
    write_graph,
)

from glow_jax import GlowError
from glow_jax.bridge.reading.openai_files import Variable, open_openai

DATA = Path(__file__).parent / "data" / "openai"
CASES = sorted(path.name for path in DATA.iterdir())
BEST = "model_best_loss.ckpt"
SMALL = DATA / "e_conditional_5bit"
FROZEN = DATA / "frozen_1x1_affine_8bit"


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    many = {f"model/{i}/f1/b": rng.standard_normal((1, i + 1), np.float32) for i in range(40)}
    return many | {
        "model/0/indices": np.array([2, -1, 0], np.int32),
        "Variable": np.array(3.5, np.float32),
        "wide": rng.standard_normal((2, 3)),
    }


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_of_the_original_is_read(case: str) -> None:
    declared = json.loads((DATA / case / "variables.json").read_text())["model"]
    with open_openai(DATA / case) as file:
        assert not file.is_graph
        assert {name: list(file.variables[name].shape) for name in declared} == declared
        whole = {name: file.read(name) for name in file.variables}
        assert file.settings == json.loads((DATA / case / "hps.json").read_text())
        assert file.settings_problem is None
    stored = sum(array.nbytes for array in whole.values())
    assert stored == (DATA / case / f"{BEST}.data-00000-of-00001").stat().st_size
    for name, array in whole.items():
        assert array.dtype == (np.int32 if "indices" in name else np.float32)
        assert np.isfinite(array).all()


def test_the_initialisation_is_another_checkpoint_and_has_no_settings() -> None:
    with open_openai(DATA / "d_reverse_additive_no_learntop" / "init") as file:
        assert file.variables["model/0/0/actnorm_center/b"] == Variable("float32", (1, 1, 1, 12))
        assert file.settings is None
        assert str(file.settings_problem).endswith("holds no train.txt, test.txt or hps.json.")


def test_a_frozen_graph_holds_the_checkpoint_s_values() -> None:
    checkpoint = read_all(FROZEN)
    with open_openai(FROZEN / "graph_constants.pb") as file:
        assert file.is_graph
        assert file.settings is not None
        trained = {name: file.read(name) for name in file.variables if name in checkpoint}
    assert len(trained) > 40
    check_same(trained, {name: checkpoint[name] for name in trained})


@pytest.mark.parametrize(
    "name", ["", BEST, f"{BEST}.index", f"{BEST}.data-00000-of-00001"], ids=repr
)
def test_each_way_to_name_a_checkpoint(name: str) -> None:
    with open_openai(SMALL / name) as file:
        assert len(file.variables) == 60
        assert file.settings is not None


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("block_size", [1, 300, 10**6])
def test_what_is_written_is_read(
    arrays: dict[str, np.ndarray], block_size: int, shards: int, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "any.ckpt", arrays, block_size=block_size, shards=shards)
    check_same(read_all(tmp_path), arrays)


def test_a_written_graph_is_read(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    check_same(read_all(write_graph(tmp_path / "graph.pb", arrays)), arrays)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (1, field(5, struct.pack("<2f", 1, 2)), [1, 2, 2]),
        (1, fixed32(5, struct.pack("<f", 1)) + fixed32(5, struct.pack("<f", 2)), [1, 2, 2]),
        (1, b"", [0, 0, 0]),
        (3, field(7, varint(7) + varint(-3)), [7, -3, -3]),
        (3, field(7, 7) + field(7, -3), [7, -3, -3]),
    ],
)
def test_a_constant_s_last_value_fills_it(
    dtype: int, values: bytes, expected: list[int], tmp_path: Path
) -> None:
    content = field(1, dtype) + field(2, shape_message([3])) + values
    (tmp_path / "graph.pb").write_bytes(constant("a", content, dtype))
    assert read_all(tmp_path / "graph.pb")["a"].tolist() == expected


def test_only_what_is_asked_for_is_taken(tmp_path: Path) -> None:
    arrays = {"small": np.ones(3, np.float32), "large": np.ones(10**6, np.float32)}
    write_bundle(tmp_path / "a.ckpt", arrays)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for path in sorted(tmp_path.glob("a.ckpt.*")):
            archive.add(path, path.name)
    for path in (tmp_path, tmp_path / "a.tar", write_graph(tmp_path / "a.pb", arrays)):
        with open_openai(path, memory=4_100_000) as file:
            assert file.read("small").tolist() == [1, 1, 1]
            assert file.read("large").size == 10**6
            with pytest.raises(GlowError, match=r"'large' needs more than 0.0041 GB of memory"):
                file.read("large")


def test_the_best_checkpoint_is_preferred_and_others_are_asked_for(tmp_path: Path) -> None:
    for name in ("b.ckpt", "a.ckpt"):
        write_bundle(tmp_path / name, {name: np.ones(1, np.float32)})
    with (
        pytest.raises(
            GlowError, match=r"holds 2 checkpoints \(a.ckpt, b.ckpt\): give the .index of"
        ),
        open_openai(tmp_path),
    ):
        pass
    assert list(read_all(tmp_path / "b.ckpt")) == ["b.ckpt"]
    write_bundle(tmp_path / BEST, {"best": np.ones(1, np.float32)})
    assert list(read_all(tmp_path)) == ["best"]


@pytest.mark.parametrize(
    ("content", "settings", "problem"),
    [
        ({"train.txt": '{"a": 1, "b": null}\nno JSON'}, {"a": 1}, None),
        ({"train.txt": "", "test.txt": '{"a": 2}\n'}, {"a": 2}, None),
        ({"train.txt": "no", "hps.json": '{\n"a": 3}'}, {"a": 3}, None),
        ({"train.txt": "no", "hps.json": "3"}, None, "train.txt is not valid JSON"),
        ({"train.txt": "[" * 10**5}, None, "is not valid JSON"),
        ({"train.txt": '{"a": ' * 30 + "1" + "}" * 30}, None, "nested more than 20 deep"),
        ({"train.txt": " " * 2**21}, None, "has more than 1048576 bytes"),
    ],
)
def test_the_settings_are_a_first_line(
    content: dict[str, str], settings: object, problem: str | None, tmp_path: Path
) -> None:
    write_bundle(tmp_path / BEST, {"a": np.ones(1, np.float32)})
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with open_openai(tmp_path) as file:
        assert file.settings == settings
        assert (file.settings_problem is None) == (problem is None)
        assert (problem or "") in (file.settings_problem or "")


@pytest.mark.parametrize("prefix", [BEST, ".", "..", "", "a\n"])
def test_the_settings_beside_a_prefix(prefix: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", {"a": np.ones(1, np.float32)})
    for path in tmp_path.glob("x.*"):
        path.rename(tmp_path / f"{prefix}.{path.name.removeprefix('x.')}")
    (tmp_path / "train.txt").write_text('{"a": 1}')
    with open_openai(tmp_path) as file:
        assert file.settings == {"a": 1}


def test_the_path_in_checkpoint_is_not_followed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "here.ckpt", {"here": np.ones(1, np.float32)})
    (tmp_path / "elsewhere").mkdir()
    elsewhere = tmp_path / "elsewhere" / BEST
    write_bundle(elsewhere, {"elsewhere": np.ones(1, np.float32)})
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{elsewhere}"\n')
    assert list(read_all(tmp_path)) == ["here"]
    with pytest.raises(GlowError, match=r"checkpoint is no file of openai/glow"):
        read_all(tmp_path / "checkpoint")


@pytest.mark.slow
def test_no_tensorflow_is_imported() -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from glow_jax.bridge.reading.openai_files import open_openai\n"
        f"with open_openai(Path({str(SMALL)!r})) as file: [file.read(n) for n in file.variables]\n"
        "print('google_crc32c' in sys.modules, 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
