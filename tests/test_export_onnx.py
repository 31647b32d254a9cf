"""ONNX models of runs, by jax2onnx and onnxruntime: `pip install -e '.[export]'`.

Without these libraries the tests in this file are skipped.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import small_models
from test_export import FILES, VARIATIONAL, check_program, model_of
from training_runs import run_script, two_epochs

from glow_jax.cli import export as export_command
from glow_jax.export import as_onnx
from glow_jax.export.frozen import frozen
from glow_jax.export.programs import programs_of

_MISSING = [name for name in ("jax2onnx", "onnxruntime") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason="pip install -e '.[export]'"),
]

CASES = {name: {} for name in small_models.CONFIGS} | {"conditional_shuffle": VARIATIONAL}


@pytest.mark.parametrize("name", CASES)
def test_a_model_gives_the_runs_own_numbers_for_any_number_of_images(
    name: str, randomise: Callable[..., Any], tmp_path: Path
) -> None:
    model = model_of(name, randomise, **CASES[name])
    for program in programs_of(model.config):
        path = tmp_path / f"{program.name}.onnx"
        path.write_bytes(as_onnx.serialise(program, frozen(model)))
        for images in (1, 4):
            check_program(program, model, partial(as_onnx.run, path, program), images)


ALONE = """
import sys
import numpy as np, onnxruntime
encode, sample = map(onnxruntime.InferenceSession, sys.argv[1:])
pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
uniform = np.full((2, 8, 8, 1), 0.5, np.float32)
noise, log_prob, bits = encode.run(None, {"pixels": pixels, "uniform": uniform})
back, _ = sample.run(None, {"noise": noise, "temperature": np.array(1, np.float32)})
assert np.array_equal(back // 16, pixels // 16)
assert "jax" not in sys.modules
"""


def test_the_command_writes_all_files_and_onnx_needs_no_jax(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "export"
    trained = two_epochs(tmp_path_factory)
    run_script(export_command.main, monkeypatch, trained, "--output", output)
    assert {path.name for path in output.iterdir()} == {*FILES, "export.json"}
    about = json.loads((output / "export.json").read_text())
    assert about["refused"] == {}
    assert set(about["files"]) == set(FILES)
    paths = [output / name for name in FILES if name.endswith(".onnx")]
    subprocess.run([sys.executable, "-c", ALONE, *paths], cwd=tmp_path, check=True)
