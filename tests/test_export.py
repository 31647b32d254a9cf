"""`glow-jax export`: programs of jax.export, and what becomes of files that cannot be written.

ONNX models take libraries that few have: see test_export_onnx.py.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from jax import export as jax_export
from training_runs import error_of, run_script, two_epochs

import glow_jax
from glow_jax import Glow
from glow_jax.cli import export as export_command
from glow_jax.export import as_jax, folder
from glow_jax.export.frozen import frozen
from glow_jax.export.programs import Arrays, Program, programs_of
from glow_jax.export.proof import Proof
from glow_jax.layers import conv1x1
from glow_jax.runs import load_run

FILES = ["encode.jaxexport", "sample.jaxexport", "encode.onnx", "sample.onnx"]
VARIATIONAL = {"dequantization": "variational", "n_bits": 5}


def model_of(name: str, randomise: Callable[..., Any], **changes: Any) -> Glow:
    # With more, the inverse of some overflows.
    return randomise(small_models.build(name, **changes), scale=0.05)


def inputs_of(model: Glow, images: int) -> dict[str, np.ndarray]:
    """Random pixels, places in bins and noise, with labels for models that take them."""
    rng, config = np.random.default_rng(5), model.config
    inputs = {
        "pixels": rng.integers(0, 256, (images, *config.image_shape), np.uint8),
        "uniform": rng.random((images, *config.image_shape), dtype=np.float32),
        "noise": rng.standard_normal((images, config.dimensions), dtype=np.float32),
        "temperature": np.array(0.5, np.float32),
    }
    labels = small_models.labels(model, images)
    return inputs if labels is None else inputs | {"labels": np.asarray(labels)}


def by_hand(model: Glow, inputs: Arrays) -> dict[str, np.ndarray]:
    """What both programs should give, by the model's own methods."""
    config, y = model.config, inputs.get("labels")
    levels = 2**config.n_bits
    places = np.round(inputs["uniform"] * (2**24 // levels)) / (2**24 // levels)
    bins = inputs["pixels"] // (256 // levels)
    x = ((bins + np.minimum(places, 1 - levels * 2.0**-24)) / levels - 0.5).astype(np.float32)
    assert np.array_equal(np.floor((x + 0.5) * levels), bins)
    moved, logdet = model.redequantize(x)
    code = model.encode(moved, y)
    drawn, start = [], 0
    for shape in config.latent_shapes:
        part = inputs["noise"][:, start : start + np.prod(shape)]
        drawn.append(np.float32(0.5) * part.reshape(-1, *shape))
        start += np.prod(shape)
    values = model.decode_noise(tuple(drawn), y)
    return {
        "noise": np.asarray(small_models.flatten(code.noise)),
        "log_prob": np.asarray(code.log_prob + logdet),
        "bits_per_dim": np.asarray(model.bits_per_dim(x, y)),
        "values": np.asarray(values),
        "pixels": np.asarray(model.to_pixels(values)),
    }


def check_program(
    program: Program, model: Glow, run: Callable[[Arrays], Arrays], images: int
) -> None:
    """The outputs of a program, run from its file, are the model's own."""
    inputs = inputs_of(model, images)
    found, expected = run(inputs), by_hand(model, inputs)
    assert np.isfinite(expected["values"]).all()
    assert set(found) == {port.name for port in program.outputs}
    for port in program.outputs:
        assert found[port.name].shape == tuple(images if s == "batch" else s for s in port.shape)
        assert found[port.name].dtype == port.dtype
        if port.name == "pixels":  # a value on a bin's edge may fall on either side of it
            assert np.mean(found["pixels"] != expected["pixels"]) < 0.01
        else:
            # Random pixels are far from what a random model draws: noise of up to 100.
            np.testing.assert_allclose(
                found[port.name], expected[port.name], rtol=1e-4, atol=1e-4, err_msg=port.name
            )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("conditional_shuffle", VARIATIONAL),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in small_models.CONFIGS),
    ],
)
def test_a_program_gives_the_models_own_numbers_for_any_number_of_images(
    name: str, changes: dict, randomise: Callable[..., Any], tmp_path: Path
) -> None:
    model = model_of(name, randomise, **changes)
    for program in programs_of(model.config):
        path = tmp_path / program.name
        path.write_bytes(as_jax.serialise(program, frozen(model)))
        assert b"bijection.py" not in path.read_bytes()  # no paths of this machine
        exported = jax_export.deserialize(bytearray(path.read_bytes()))
        assert exported.platforms == ("cpu", "cuda", "tpu")
        text = exported.mlir_module()
        assert "stablehlo.convolution" in text  # not on a CPU, which has products in another branch
        # JAX promises to keep some of these, of its own; no kernel is among them.
        assert set(re.findall(r"custom_call @(\w+)", text)) == {"shape_assertion"}
        for images in (1, 4):
            check_program(program, model, partial(as_jax.run, path, program), images)


ALONE = """
import sys
import jax, numpy as np
from jax import export
encode, sample = (export.deserialize(bytearray(open(name, "rb").read())) for name in sys.argv[1:])
pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
code = encode.call(pixels, np.full((2, 8, 8, 1), 0.5, np.float32))
back = sample.call(code["noise"], np.float32(1))
assert np.array_equal(back["pixels"] // 16, pixels // 16)
assert "glow_jax" not in sys.modules and "flax" not in sys.modules
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_epochs(tmp_path_factory)


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed."""
    monkeypatch.setattr(folder, "_is_installed", lambda library: library == "jax")


@pytest.mark.usefixtures("no_onnx")
def test_the_command_writes_what_it_can_and_says_what_it_cannot(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "export"
    run_script(export_command.main, monkeypatch, trained, "--output", output)
    said = capsys.readouterr()
    assert sorted(path.name for path in output.iterdir()) == [*FILES[:1], "export.json", FILES[1]]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    for name in FILES[2:]:
        assert f"warning: {name} is not written: jax2onnx is not installed: pip" in said.err
    about = json.loads((output / "export.json").read_text())
    assert list(about["refused"]) == FILES[2:]
    for name in FILES[:2]:
        content = (output / name).read_bytes()
        entry = about["files"][name]
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["bytes"] == len(content)
        assert 0 <= max(entry["largest_differences"].values()) <= about["tolerance"] == 1e-4
        assert name in said.out
    assert about["step"] == 40
    ports = about["programs"]["encode"]["inputs"]
    assert [(port["name"], port["shape"]) for port in ports] == [
        ("pixels", ["batch", 8, 8, 1]),
        ("uniform", ["batch", 8, 8, 1]),
    ]

    subprocess.run(
        [sys.executable, "-c", ALONE, *(output / name for name in FILES[:2])],
        cwd=tmp_path,
        check=True,
    )

    message = error_of(export_command.main, monkeypatch, capsys, trained, "--output", output)
    assert f"{output} exists and is not an empty folder" in message
    message = error_of(export_command.main, monkeypatch, capsys, trained, "--output", ".")
    assert "it must name the folder of programs" in message


@pytest.mark.usefixtures("no_onnx")
@pytest.mark.slow
def test_a_file_with_other_numbers_is_not_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = as_jax.serialise

    def wrong(program: Program, model: Glow) -> bytes:
        if program.name == "sample":
            model.levels[0].steps.actnorm.bias[...] += 1e-3
        return right(program, model)

    monkeypatch.setattr(folder, "FORMATS", (as_jax.FORMAT._replace(serialise=wrong),))
    export = folder.export_programs(load_run(trained), tmp_path / "export")
    assert list(export.written) == ["encode.jaxexport"]
    assert "its values differs from the model's own by" in export.refused["sample.jaxexport"]
    assert not (tmp_path / "export" / "sample.jaxexport").exists()


@pytest.mark.usefixtures("no_onnx")
@pytest.mark.parametrize("hindrance", ["conversion", "size"])
def test_where_no_file_can_be_written_there_is_no_folder(
    hindrance: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hindrance == "size":
        monkeypatch.setattr(folder, "_MOST_BYTES", 1000)
    else:
        broken = as_jax.FORMAT._replace(serialise=lambda program, model: bytes(int("no number")))
        monkeypatch.setattr(folder, "FORMATS", (broken,))
    with pytest.raises(glow_jax.GlowError, match=f"{trained} cannot be exported: ") as caught:
        folder.export_programs(load_run(trained), tmp_path / "export")
    expected = {
        "conversion": "jax cannot convert it: invalid literal for int() with base 10: 'no number'",
        "size": "the weights take",
    }
    assert expected[hindrance] in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_proof_needs_numbers_of_the_same_kind(plain: small_models.Pair) -> None:
    programs = programs_of(plain.model.config)
    proof = Proof(plain.model, programs)
    own = programs[0].of(plain.model)

    def run(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        def changed(inputs: Arrays) -> Arrays:
            found = own(inputs["pixels"], inputs["uniform"])
            return {name: change(np.asarray(numbers)) for name, numbers in found.items()}

        return proof.differences(programs[0], changed)

    assert set(run(lambda found: found).values()) == {0.0}
    assert run(lambda found: found + np.float32(2e-4))["bits_per_dim"] > 1e-5
    for exact in proof._in_float64(programs[0]):
        assert {numbers.dtype for numbers in exact.values()} == {np.dtype(np.float64)}
    right = [dict(exact) for exact in proof._in_float64(programs[0])]
    proof._outputs["encode"] = [{name: n + 1e-3 for name, n in one.items()} for one in right]
    assert max(run(lambda found: found).values()) < 1e-5  # as float32 is wrong, and float64 is not
    for change in (
        lambda found: found[:, None],
        lambda found: found.astype(np.float64),
        lambda found: found * np.float32(np.nan),
    ):
        assert set(run(change).values()) == {float("inf")}


@pytest.mark.parametrize("index", [0, 1], ids=["encode", "decode"])
def test_a_frozen_model_has_nothing_to_prepare(
    index: int, plain: small_models.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = frozen(plain.model)
    program = programs_of(model.config)[index]
    inputs = [
        jnp.zeros([2 if isinstance(size, str) else size for size in port.shape], port.dtype)
        for port in program.inputs
    ]

    def refuse(*_: object) -> None:
        raise AssertionError("a matrix is prepared")

    jax.clear_caches()
    monkeypatch.setattr(conv1x1, "_inverse_of_product", refuse)
    monkeypatch.setattr(conv1x1.Conv1x1LU, "_weight", refuse)
    jax.make_jaxpr(program.of(model))(*inputs)
    with pytest.raises(AssertionError, match="a matrix is prepared"):
        jax.make_jaxpr(program.of(plain.model))(*inputs)
