"""What the benchmarks compare is the same model, and their commands run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.layer_by_layer import compute_layer_by_layer  # noqa: E402
from glow_jax.bridge import torch_glow  # noqa: E402


@pytest.mark.parametrize("pad_ones", [False, True])
@pytest.mark.parametrize("flow_coupling", ["affine", "additive"])
def test_layer_by_layer_is_the_reference(flow_coupling, pad_ones: bool):
    torch.manual_seed(0)
    model = torch_glow.Glow(
        image_shape=(8, 8, 1),
        K=2,
        L=2,
        hidden_channels=5,
        flow_coupling=flow_coupling,
        pad_ones=pad_ones,
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


SMALL = "--hidden_channels 8"
COMMANDS = {
    "speed": f"--K 1 --L 1 {SMALL} --image_size 8 --batch_sizes 2 4 --rounds 2 --output OUT/speed",
    "memory": f"--depths 1 2 --batch_size 2 {SMALL} --output OUT",
    "startup": f"--K 1 --L 1 {SMALL} --batch_size 2 --attempts 1 --output OUT/startup.json",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_writes_its_table_and_its_files(name: str, tmp_path: Path):
    script = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    flags = COMMANDS[name].replace("OUT", str(tmp_path)).split()
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| ") >= 2
    results = json.loads((tmp_path / f"{name}.json").read_text())
    assert results["machine"]
    assert len(results["rows"]) >= 2
    assert (tmp_path / f"{name}.png").exists() == (name != "startup")
