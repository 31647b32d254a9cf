"""Frozen graphs of openai/glow: which constants are weights, and which are of operations."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from openai_cases import same_models
from openai_files import field, node, write_bundle, write_graph
from openai_models import architecture, variables

from glow_jax import GlowError
from glow_jax.bridge.from_openai import convert

MODEL = architecture(K=1, L=2, flow_coupling="additive", n_bits=5)
WEIGHTS = variables(MODEL)
ONES = np.ones((1, 6, 6, 1), np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> object:
    path = tmp_path_factory.mktemp("whole") / "graph.pb"
    return convert(write_graph(path, WEIGHTS), image_size=8, n_bits=5).model


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("model/cond/x", np.ones((3, 4), np.float32)),
        ("model/cond/value", np.ones(3, np.float32)),
        ("model/cond/Const", np.ones((3, 4), np.float32)),
        ("model/cond/scale", np.ones(3, np.float32)),
        ("model/cond/l_1/Const", ONES),
        ("model/cond/0/kernel16", np.ones((3, 3), np.float64)),
        ("model/x/weights", np.ones(4, np.float16)),
        ("model/cond/embedding", np.ones(4, np.int64)),
        ("model/cond/lookup_indices", np.ones(4, np.int32)),
    ],
)
def test_no_variable_is_dropped(name: str, array: np.ndarray, reads: bool, tmp_path: Path) -> None:
    path = write_graph(tmp_path / "graph.pb", WEIGHTS | {name: array}, reads=reads)
    with pytest.raises(GlowError, match=f"'{name}' does not fit the model"):
        convert(path, image_size=8, n_bits=5)


def test_a_number_that_a_node_reads_is_a_variable(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "graph.pb", WEIGHTS | {"global_step": np.array(1, np.int32)})
    with pytest.raises(GlowError, match="'global_step' does not fit the model"):
        convert(path, image_size=8, n_bits=5)


def test_constants_that_nothing_reads_as_variables_are_of_operations(
    whole: object, tmp_path: Path
) -> None:
    names = ["model/prior/zeros", "model/zeros", "model/ones_like", "model/0/0/f1/l_1/pad"]
    names += ["model/0/0/f1/l_1/concat/values_1", "model/0/0/f1/l_1/Tile/input", "beta"]
    operations: dict[str, np.ndarray] = dict.fromkeys(names, ONES)
    path = write_graph(tmp_path / "graph.pb", WEIGHTS, operations)
    assert same_models(convert(path, image_size=8, n_bits=5).model, whole)


def test_where_no_node_reads_anything_names_and_kinds_tell(whole: object, tmp_path: Path) -> None:
    operations: dict[str, np.ndarray] = {
        "model/0/0/f1/l_1/Const": ONES,
        "model/0/0/actnorm_scale/Const": np.arange(4, dtype=np.int32),
        "model/0/0/Sum/reduction_indices": np.arange(3, dtype=np.int32),
        "model/0/0/strided_slice/stack_1": np.zeros(4, np.int32),
        "model/0/0/f1/l_1/Tile/multiples/1": np.array(6, np.int32),
        "model/0/0/f1/l_1/Pad/paddings": np.zeros((4, 2), np.int32),
        "model_4/add/y": np.ones(1, np.float32),
        "model/sub/y": np.array(0.5, np.float32),
    }
    path = write_graph(tmp_path / "graph.pb", WEIGHTS, operations, reads=False)
    assert same_models(convert(path, image_size=8, n_bits=5).model, whole)


def test_a_graph_that_another_one_imported(whole: object, tmp_path: Path) -> None:
    imported = {f"import/{name}": array for name, array in WEIGHTS.items()}
    path = write_graph(
        tmp_path / "graph.pb", imported, {"import/model_4/sub/y": np.ones((), np.float32)}
    )
    assert same_models(convert(path, image_size=8, n_bits=5).model, whole)


@pytest.mark.parametrize("lost", [("indices", "indices_inverse"), ("W",)])
def test_a_graph_that_has_lost_what_it_reads(lost: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    arrays = variables(architecture(K=1, L=2, flow_permutation="shuffle"))
    kept = {name: array for name, array in arrays.items() if not name.endswith(lost)}
    write_graph(path, kept, reads=False)
    nodes = b"".join(node(f"{name}/read", "Identity", field(3, name.encode())) for name in arrays)
    path.write_bytes(path.read_bytes() + nodes)
    with pytest.raises(GlowError, match=f"reads the variable 'model/0/0/.*{lost[0]}', which is"):
        convert(path, image_size=8, n_bits=8)


@pytest.mark.parametrize("kept", ["indices", "indices_inverse"])
def test_one_order_of_two_is_enough_for_a_graph(kept: str, tmp_path: Path) -> None:
    arrays = variables(architecture(K=1, L=2, flow_permutation="shuffle"))
    wanted = convert(write_graph(tmp_path / "whole.pb", arrays), image_size=8, n_bits=8)
    one = {k: v for k, v in arrays.items() if "/shuffle/" not in k or k.endswith(f"/{kept}")}
    found = convert(write_graph(tmp_path / "one.pb", one), image_size=8, n_bits=8)
    assert same_models(found.model, wanted.model)
    one[f"model/0/0/shuffle/{kept}"] = np.zeros(12, np.int32)
    with pytest.raises(GlowError, match=f"shuffle/{kept}' is no permutation"):
        convert(write_graph(tmp_path / "wrong.pb", one), image_size=8, n_bits=8)
    write_bundle(tmp_path / "model_best_loss.ckpt", one)
    with pytest.raises(GlowError, match="is missing"):
        convert(tmp_path, image_size=8, n_bits=8)
