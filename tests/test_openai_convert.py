"""`convert/from_openai.py`: forms of files, refusals, averages and the optimizer's state."""

import dataclasses
import json
import shutil
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

from flax import nnx
from openai_cases import FULL, SETTINGS, SHUFFLED, same_models, write
from openai_files import read_all
from torch_files import exit_status
from training_runs import metrics_of, train

from glow_jax import GlowError
from glow_jax.bridge import from_openai as from_openai_module
from glow_jax.bridge import mapping
from glow_jax.bridge.conversion import Conversion
from glow_jax.bridge.from_openai import convert
from glow_jax.bridge.openai import flat_noise, levels_of
from glow_jax.cli.from_openai import main as from_openai
from glow_jax.cli.sample import main as sample
from glow_jax.hub import load
from glow_jax.runs import load_optimizer_state, load_run


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert exit_status(from_openai, monkeypatch, FULL, "--output", tmp_path / "run") == 0
    said = capsys.readouterr().out
    for part in ("openai/glow", "K = 2, L = 2, 16 hidden", "edge bias", "16 x 16 x 3, 5 bits"):
        assert part in said
    for part in ("36,248", "openai_adamax, after 150 updates", "raw weights", "bits/dim", "<="):
        assert part in said
    run = load_run(tmp_path / "run")
    expected = convert(FULL)
    assert same_models(run.model, expected.model)
    assert same_models(run.average, expected.average)
    assert (run.step, run.has_optimizer) == (150, True)
    assert not same_models(run.model, run.average)
    assert same_models(load(tmp_path / "run"), run.average)
    assert same_models(load(tmp_path / "run", average=False), run.model)
    optimizer, data = run.config.optimizer, run.config.data
    assert (optimizer.optimizer, optimizer.lr, optimizer.warmup) == ("openai_adamax", 1e-3, 10)
    assert (optimizer.ema_decay, optimizer.polyak_epochs) == (1 - 1 / 20, 1)
    assert (run.config.training.batch_size, data.dataset, data.image_size) == (16, "cifar10", 16)

    # The pictures of the average are others.
    grids = []
    for flags in ([], ["--no_average"]):
        picture = tmp_path / f"{len(grids)}.png"
        arguments = (tmp_path / "run", "--num", 2, "--output", picture, *flags)
        assert exit_status(sample, monkeypatch, *arguments) == 0
        kind = "" if flags else ", averaged parameters"
        assert f"2 samples of step 150{kind}, written to" in capsys.readouterr().out
        grids.append(picture.read_bytes())
    assert grids[0] != grids[1]


def test_a_wrong_average_is_found_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*arguments: Any, **flags: Any) -> Conversion:
        conversion = convert(*arguments, **flags)
        return dataclasses.replace(conversion, average=conversion.model)

    monkeypatch.setattr(from_openai_module, "convert", wrong)
    assert exit_status(from_openai, monkeypatch, FULL, "--output", tmp_path / "run") == 2
    captured = capsys.readouterr()
    raw, average = captured.out.split("the same of the average:")
    assert "EXCEEDS" not in raw
    assert "EXCEEDS" in average
    assert "is not converted" in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_training_goes_on_where_their_program_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder, data = (tmp_path / name for name in ("source", "run", "images.npz"))
    convert(FULL).save(source)
    images = np.random.default_rng(0).integers(0, 256, (36, 16, 16, 3), np.uint8)
    np.savez(data, images=images)
    # One update an epoch; 150 are done.
    train(
        monkeypatch,
        *("--saved_model", source, "--saved_optimizer", source, "--dataset", data),
        *("--n_bits", 5, "--batch_size", 32, "--epochs", 151, "--output_dir", folder),
    )
    rows = metrics_of(folder)
    assert [row["step"] for row in rows] == [151]
    # Their warm-up is of 10 epochs, which are over.
    assert rows[0]["learning_rate"] == pytest.approx(1e-3)
    start, theirs = load_run(folder, 150), convert(FULL)
    assert same_models(start.model, theirs.model)
    assert same_models(start.average, theirs.average)
    target = jax.eval_shape(lambda: theirs.optimizer_state)
    assert same_models(load_optimizer_state(folder, target, 150), theirs.optimizer_state)
    # The average goes on from theirs, with our lower decay of early updates instead of 1 - 1/20.
    end = load_run(folder)
    before, after, raw = (
        nnx.state(model, nnx.Param) for model in (start.average, end.average, end.model)
    )
    share = 1 - (1 + 150) / (10 + 150)
    expected = jax.tree.map(lambda average, new: average + share * (new - average), before, raw)
    for found, wanted in zip(jax.tree.leaves(after), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert not same_models(before, after)


def test_the_name_of_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SHUFFLED, "abl-shuffle-aff")
    data = "model_best_loss.ckpt.data-00000-of-00001"
    for given in (".", "model_best_loss.ckpt", data):
        assert exit_status(from_openai, monkeypatch, f"abl-shuffle-aff/{given}", "--no_check") == 0
        assert Path("runs/abl-shuffle-aff/hparams.json").is_file()
        shutil.rmtree("runs")
    monkeypatch.chdir("abl-shuffle-aff")
    assert exit_status(from_openai, monkeypatch, ".", "--no_check") == 0
    assert Path("runs/abl-shuffle-aff/hparams.json").is_file()


def tar(folder: Path, path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        archive.add(folder, "logs/abl")
    return path


@pytest.mark.parametrize("form", ["prefix", "index", "tar", "tar.gz", "tar.xz", "moved train.txt"])
def test_every_form_is_the_same_model(form: str, tmp_path: Path) -> None:
    folder = shutil.copytree(FULL, tmp_path / "abl")
    forms = {
        "prefix": lambda: folder / "model_best_loss.ckpt",
        "index": lambda: folder / "model_best_loss.ckpt.index",
        "tar": lambda: tar(folder, tmp_path / "abl.tar", "w"),
        "tar.gz": lambda: tar(folder, tmp_path / "abl.tar.gz", "w:gz"),
        "tar.xz": lambda: tar(folder, tmp_path / "abl.tar.xz", "w:xz"),
        "moved train.txt": lambda: (folder / "train.txt").rename(folder / "test.txt").parent,
    }
    found, wanted = convert(forms[form]()), convert(FULL)
    assert same_models(found.model, wanted.model)
    assert same_models(found.average, wanted.average)
    assert same_models(found.optimizer_state, wanted.optimizer_state)
    assert found.config == wanted.config


def test_slots_are_the_state_of_the_optimizer_by_the_order_of_creation() -> None:
    names = json.loads((FULL / "variables.json").read_text())["trainable_in_creation_order"]
    arrays, state = read_all(FULL), convert(FULL).optimizer_state
    assert state is not None
    adam = next(part for part in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(part))
    assert int(adam.count) == int(arrays["Variable"]) - 1 == 150
    j = names.index("model/1/0/f1/l_1/W")
    kernels = adam.mu["levels"][1]["steps"]["coupling"]["network"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(kernels[...][0], arrays[f"Variable_{2 * j + 2}"])
    j = names.index("model/0/1/actnorm_scale/logs")
    logs = adam.nu["levels"][0]["steps"]["actnorm"]["logs"]
    np.testing.assert_array_equal(logs[...][1], arrays[f"Variable_{2 * j + 1}"].reshape(-1))
    j = names.index("model/0/0/invconv/W")
    matrix = adam.nu["levels"][0]["steps"]["permutation"]["weight"]
    np.testing.assert_array_equal(matrix[...][0], arrays[f"Variable_{2 * j + 1}"].T)


def is_adam(part: Any) -> bool:
    return type(part).__name__ == "ScaleByAdamState"


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("model/0/invconv/W", np.eye(12, dtype=np.float32), "(extra_invertible), which is not"),
        ("model/0/0/invconv/P", np.eye(12, dtype=np.float32), "does not fit the model"),
        ("model/cond/w", np.zeros(3, np.float32), "does not fit the model"),
        ("global_step", np.zeros((), np.int32), "does not fit the model"),
        ("model/0/0/actnorm_center/b", None, "is missing"),
        ("model/0/0/actnorm_center/b/ExponentialMovingAverage", None, "is missing"),
        ("model/1/0/invconv/W", np.zeros((24, 24), np.float32), "is a singular matrix"),
        ("model/1/0/f1/l_2/W", np.full((1, 1, 16, 16), np.nan, np.float32), "NaN"),
        ("model/1/0/f1/l_1/W", np.zeros((3, 3, 12, 16), np.float32), "make it float32 of shape"),
        ("model/1/0/f1/l_2/W", np.zeros((1, 1, 16, 16), np.int32), "is int32 of shape"),
    ],
)
def test_variables_that_cannot_be(
    name: str, change: np.ndarray | None, sentence: str, tmp_path: Path
) -> None:
    arrays = read_all(FULL)
    if change is None:
        del arrays[name]
    else:
        arrays[name] = np.asarray(change)
    with pytest.raises(GlowError) as raised:
        convert(write(tmp_path / "logs", arrays, SETTINGS))
    assert sentence in str(raised.value)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"Variable_1000": np.zeros(3, np.float32)}, "'Variable_1000' does not fit the model"),
        ({"Variable_7": None}, "'Variable_7' is missing"),
        ({"Variable": None}, "'Variable' is missing"),
        ({"Variable": np.float32(1.5)}, "must be a whole number"),
        ({"Variable": np.float32(0)}, "must be a whole number"),
        ({"Variable": np.float32(np.nan)}, "must be a whole number"),
        ({"Variable": np.int32(4)}, "is int32 of shape"),
        ({"Variable_1": -np.ones((1, 1, 1, 12), np.float32)}, "levels.0.steps.actnorm.bias is neg"),
        ({"Variable_1": np.ones(12, np.float32)}, "make it float32 of shape"),
        ({"Variable_2": np.full((1, 1, 1, 12), np.nan, np.float32)}, "'Variable_2' holds NaN"),
    ],
)
def test_an_optimizer_that_cannot_be_does_not_cost_the_weights(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    arrays = {name: array for name, array in read_all(FULL).items() if name not in change}
    arrays |= {name: np.asarray(array) for name, array in change.items() if array is not None}
    found = convert(write(tmp_path / "logs", arrays, SETTINGS))
    assert (found.optimizer_state, found.step) == (None, 0)
    assert same_models(found.model, convert(FULL).model)
    assert [note for note in found.notes if "state is left out: " in note and sentence in note]


def test_a_slot_s_wrong_checksum_does_not_cost_the_weights(tmp_path: Path) -> None:
    folder = shutil.copytree(FULL, tmp_path / "logs")
    path = folder / "model_best_loss.ckpt.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[3] ^= 1  # names are in order, and Variable comes first
    path.write_bytes(content)
    found = convert(folder)
    assert found.optimizer_state is None
    assert [note for note in found.notes if "left out: the tensor of key 'Variable'" in note]


def test_without_mean_gradients_the_optimizer_s_state_is_left_out(tmp_path: Path) -> None:
    # Their program numbers one slot for each weight where beta1 is 0.
    arrays = {k: v for k, v in read_all(FULL).items() if not k.startswith("Variable_")}
    weights = [name for name in arrays if name.endswith("/ExponentialMovingAverage")]
    arrays |= {f"Variable_{j + 1}": abs(arrays[name]) for j, name in enumerate(weights)}
    found = convert(write(tmp_path / "logs", arrays, SETTINGS | {"beta1": 0.0}))
    assert found.optimizer_state is None
    assert [note for note in found.notes if "beta1 is 0" in note and "left out" in note]


def test_an_optimizer_that_nothing_names_is_taken_for_adamax(tmp_path: Path) -> None:
    arrays = read_all(FULL)
    nameless = {name: value for name, value in SETTINGS.items() if name != "optimizer"}
    for number, settings in enumerate([None, nameless]):
        folder = write(tmp_path / f"{number}", arrays, settings)
        found = convert(folder, image_size=16, n_bits=5)
        assert same_models(found.optimizer_state, convert(FULL).optimizer_state)
        assert [note for note in found.notes if "taken for adamax's" in note]
    assert not [note for note in convert(FULL).notes if "taken for adamax's" in note]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda order: np.zeros_like(order), "is no permutation"),
        (lambda order: order - 1, "is no permutation"),
        (lambda order: order[::-1].copy(), "contradict each other"),
    ],
)
def test_orders_that_cannot_be(change: Any, sentence: str, tmp_path: Path) -> None:
    arrays = read_all(SHUFFLED)
    name = "model/0/1/shuffle/indices"
    arrays[name] = change(arrays[name])
    settings = json.loads((SHUFFLED / "train.txt").read_text().split("\n")[0])
    with pytest.raises(GlowError, match=sentence):
        convert(write(tmp_path / "logs", arrays, settings))


def test_weights_under_the_names_of_averages(tmp_path: Path) -> None:
    suffix = "/ExponentialMovingAverage"
    raw = {k: v for k, v in read_all(FULL).items() if k.startswith("model/") and suffix not in k}
    renamed = {name + suffix: array for name, array in raw.items()}
    found = convert(write(tmp_path / "logs", renamed, SETTINGS))
    assert same_models(found.model, convert(FULL).model)
    assert found.average is None
    assert any("names of averages only" in note for note in found.notes)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(GlowError, match="not the weights of a Glow of openai/glow"):
        convert(write(tmp_path / "logs", {"dense/kernel": np.ones((2, 2), np.float32)}, SETTINGS))


def test_settings_that_cannot_be_read_are_told_of(tmp_path: Path) -> None:
    folder = write(tmp_path / "logs", read_all(SHUFFLED))
    notes = convert(folder, image_size=8, n_bits=8).notes
    assert [note for note in notes if "holds no train.txt" in note]
    (folder / "train.txt").write_text("{")
    notes = convert(folder, image_size=8, n_bits=8).notes
    assert [note for note in notes if "defaults: " in note and "is not valid JSON" in note]


def test_the_layout_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = [], mapping.build_reference
    monkeypatch.setattr(mapping, "build_reference", lambda c: built.append(c) or build(c))
    mapping.layout_shapes.cache_clear()
    assert convert(FULL).optimizer_state is not None
    assert len(built) == 1


def test_the_zeros_of_the_top_prior_are_made_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "logs", read_all(FULL))
    zeros = 4 * 2 * 24 * (2048 // 4) ** 2  # bytes
    tracemalloc.start()
    try:
        conversion = convert(folder, image_size=2048, n_bits=5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert conversion.values["prior_h"].nbytes == zeros
    assert conversion.average is not None
    assert peak < 1.5 * zeros


def test_flat_noise_there_and_back() -> None:
    config = convert(SHUFFLED).config.model
    flat = np.arange(2 * 192, dtype=np.float32).reshape(2, 192)
    levels = levels_of(flat, config)
    assert [level.shape for level in levels] == [(2, 4, 4, 6), (2, 2, 2, 24)]
    assert float(levels[0][0, 0, 1, 0]) == 6  # channels run fastest, then columns
    np.testing.assert_array_equal(flat_noise(levels), flat)
    assert flat_noise(levels_of(flat[:0], config)).shape == (0, 192)
    nested: Any = flat.tolist()
    for level, wanted in zip(levels_of(nested, config), levels, strict=True):
        np.testing.assert_array_equal(level, wanted)
    with pytest.raises(GlowError, match=r"\(B, 192\)"):
        levels_of(flat[:, :-1], config)
    for wrong in ([levels[0], levels[1][:1]], [levels[0], levels[1][0]], []):
        with pytest.raises(GlowError, match="of one B"):
            flat_noise(wrong)
