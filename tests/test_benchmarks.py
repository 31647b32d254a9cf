"""What the benchmarks compare is the same model, and their commands run."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.compiled import kernels  # noqa: E402
from benchmarks.layer_by_layer import compute_layer_by_layer  # noqa: E402
from glow_jax.bridge import torch_glow  # noqa: E402
from glow_jax.training import trainer  # noqa: E402

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


# Those left to the slow tests differ in one value.
@pytest.mark.parametrize(
    ("flow_coupling", "padding"),
    [
        ("affine", "edge_bias"),
        ("additive", "zeros"),
        pytest.param("affine", "zeros", marks=pytest.mark.slow),
        pytest.param("additive", "ones", marks=pytest.mark.slow),
    ],
)
def test_layer_by_layer_is_the_reference(
    flow_coupling: Literal["affine", "additive"], padding: Literal["zeros", "ones", "edge_bias"]
):
    torch.manual_seed(0)
    model = torch_glow.Glow(
        image_shape=(8, 8, 1),
        K=2,
        L=2,
        hidden_channels=5,
        flow_coupling=flow_coupling,
        padding=padding,
        actnorm_logs_factor=3 if padding == "edge_bias" else 1,
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64) - 0.5

    def results() -> list[np.ndarray]:
        code = model.encode(x)
        decoded = model.decode_noise(code.noise)
        (gradient,) = torch.autograd.grad(code.log_prob.sum(), model.steps(0)[0].actnorm.logs)
        return [part.detach().numpy() for part in (*code.latents, code.log_prob, decoded, gradient)]

    expected = results()
    compute_layer_by_layer(model)
    for found, wanted in zip(results(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)


def test_every_command_finds_what_it_imports(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = ("accelerator", "ahead_of_time", "baseline", "compiled", "conversion", "curves", "data")
    names += ("faults", "inverse", "memory", "parity", "precision", "programs", "saving", "scaling")
    for name in (*names, "speed", "speed_jax", "speed_torch", "startup"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    # What runs in a fresh Python for a batch of NaN takes the place of this.
    assert "trainer.prepare_images = " in sys.modules["faults"].NAN
    assert callable(trainer.prepare_images)


@pytest.fixture
def ahead_of_time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command that compiles for machines that are not there."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("ahead_of_time")


def test_what_was_compiled_is_not_compiled_again(
    ahead_of_time: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    name, *others = ahead_of_time.CASES
    output = tmp_path / "found.json"
    output.write_text(json.dumps({"machine": "one", "rows": {name: {"unfinished": 60}}}))
    monkeypatch.setattr(ahead_of_time, "missing", lambda platform: f"{platform} lacks its compiler")
    monkeypatch.setattr(sys, "argv", ["ahead_of_time.py", "--output", str(output)])
    ahead_of_time.main()
    out, err = capsys.readouterr()
    assert out.splitlines()[-2:] == [f"| {name} | not within 60 min |  |  |  |  |  |  |", ""]
    assert [
        re.sub(": (tpu|cuda) lacks its compiler", "", line) for line in err.splitlines()
    ] == others


def test_a_program_that_takes_too_long_is_stopped(ahead_of_time: Any):
    arguments = ahead_of_time.Arguments(minutes=1e-3)
    name = next(iter(ahead_of_time.CASES))
    assert ahead_of_time.compile_apart(name, arguments) == {"unfinished": 1e-3}


# Shortened from what XLA prints for an H100. The other computations of fusions launch nothing.
FOR_A_GPU = """
%fused (p.0: f32[3]) -> f32[3] {
  ROOT %copy.1 = f32[3]{0} copy(%p.0)
}

%inner (p.1: (s32[], f32[3])) -> (s32[], f32[3]) {
  %add.1 = f32[3]{0} fusion(%get.1), kind=kLoop, calls=%fused
  ROOT %tuple.1 = (s32[], f32[3]{0}) tuple(%get.0, %add.1)
}

%outer (p.2: (s32[], f32[3])) -> (s32[], f32[3]) {
  %gemm.1 = (f32[3]{0}, s8[4]{0}) custom-call(%get.2), custom_call_target="__cublas$gemm"
  %while.1 = (s32[], f32[3]{0}) while(%t), condition=%c, body=%inner, LOOP{"n":"5"}}
  ROOT %tuple.2 = (s32[], f32[3]{0}) tuple(%get.3, %get.4)
}

ENTRY %main (p.3: f32[3]) -> f32[3] {
  %copy.2 = f32[3]{0} copy(%p.3)
  %while.2 = (s32[], f32[3]{0}) while(%t), condition=%c, body=%outer, LOOP{"n":"3"}}
  ROOT %get.5 = f32[3]{0} get-tuple-element(%while.2), index=1
}
""".replace("LOOP", 'backend_config={"known_trip_count":')


def test_kernels_are_counted_as_often_as_loops_run_them() -> None:
    assert kernels(FOR_A_GPU) == 1 + 3 * (1 + 5)
    with pytest.raises(AssertionError, match="how often it runs"):
        kernels(FOR_A_GPU.replace("known_trip_count", "unknown"))


SMALL = "--hidden_channels 8"
COMMANDS = {
    "speed": "--models tiny --rounds 2 --seconds 0.01 --output OUT/speed",
    "memory": f"--depths 1 2 --batch_size 2 {SMALL} --output OUT",
    "startup": f"--K 1 --L 1 {SMALL} --batch_size 2 --attempts 1 --output OUT/startup.json",
    "conversion": "tiny --output OUT/conversion.json",
    "precision": "--num 2 --output OUT/precision.json",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_writes_its_table_and_its_files(name: str, tmp_path: Path):
    script = BENCHMARKS / f"{name}.py"
    flags = COMMANDS[name].replace("OUT", str(tmp_path)).split()
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| ") >= 2
    results = json.loads((tmp_path / f"{name}.json").read_text())
    assert results["machine"]
    assert len(results["rows"]) >= 2
    assert (tmp_path / f"{name}.png").exists() == (name in ("speed", "memory"))
