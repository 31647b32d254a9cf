"""The settings of openai/glow: by `train.txt` or by flags, and against the variables."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from openai_cases import CONDITIONAL, FULL, SETTINGS, SHUFFLED, same_models, write
from openai_files import read_all, write_graph
from torch_files import exit_status

from glow_jax import GlowError
from glow_jax.bridge.from_openai import convert
from glow_jax.cli.from_openai import main as from_openai


def copied(source: Path, folder: Path, settings: dict | None = None) -> Path:
    """The checkpoint of a golden case, with other settings or none."""
    folder.mkdir()
    for path in source.glob("model_best_loss.ckpt.*"):
        shutil.copy(path, folder)
    if settings is not None:
        (folder / "train.txt").write_text(json.dumps(settings) + "\n")
    return folder


def test_settings_by_flags_where_there_is_no_train_txt(tmp_path: Path) -> None:
    bare = write(tmp_path / "bare", read_all(CONDITIONAL))
    with pytest.raises(GlowError, match=r"image_size and n_bits: .*--image_size 32 --n_bits 8"):
        convert(bare)
    with pytest.raises(GlowError, match="--n_bits 8"):
        convert(bare, image_size=16)
    with pytest.raises(GlowError, match="--y_weight"):
        convert(bare, image_size=16, n_bits=5)
    found = convert(bare, image_size=16, n_bits=5, y_weight=0.01 / math.log(2))
    wanted = convert(CONDITIONAL)
    assert found.config.model == wanted.config.model
    assert found.config.training.y_weight == pytest.approx(wanted.config.training.y_weight)


def test_conditional_without_a_classifier(tmp_path: Path) -> None:
    arrays = read_all(CONDITIONAL)
    settings = {**SETTINGS, "ycond": True, "width": 24, "weight_y": 0.0}
    with pytest.raises(GlowError, match=r"weight_y = 0.0.* have a classifier"):
        convert(write(tmp_path / "with", arrays, settings))
    arrays = {name: array for name, array in arrays.items() if "classifier" not in name}
    model = convert(write(tmp_path / "without", arrays, settings)).model
    assert model.classifier is None
    assert model.config.y_condition
    settings["weight_y"] = 0.01
    with pytest.raises(GlowError, match=r"weight_y = 0.01.* have no classifier"):
        convert(write(tmp_path / "lost", arrays, settings))


def test_a_graph_has_lost_its_classifier(tmp_path: Path) -> None:
    arrays = {k: v for k, v in read_all(CONDITIONAL).items() if "classifier" not in k}
    mask = {"model/0/0/f1/l_1/Const": np.ones((1, 18, 18, 1), np.float32)}
    write_graph(tmp_path / "graph.pb", arrays, mask)
    shutil.copy(CONDITIONAL / "train.txt", tmp_path)
    conversion = convert(tmp_path / "graph.pb")
    assert conversion.model.classifier is None
    assert conversion.config.model.y_classes == 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"depth": 3}, "depth = 3, but its variables have depth = 2"),
        ({"n_levels": 3}, "n_levels = 3"),
        ({"width": 512}, "width = 512"),
        ({"flow_permutation": 1}, "flow_permutation = 1"),
        ({"flow_coupling": 1}, "flow_coupling = 1"),
        ({"learntop": False}, "learntop = False"),
        ({"ycond": True}, "ycond = True"),
        ({"extra_invertible": 1}, "extra_invertible = 1"),
        ({"flow_permutation": "2"}, 'flow_permutation = "2", but its variables have'),
        ({"learntop": "true"}, 'learntop = "true", but its variables have learntop = True'),
        ({"n_bits_x": 9}, "n_bits_x = 9; it must be a whole number from 1 to 8"),
        ({"n_bits_x": "8"}, 'n_bits_x = "8"; it must be a whole number'),
        ({"n_bits_x": True}, "n_bits_x = True"),
        ({"image_size": 10**30}, "image_size = 1"),
        ({"image_size": -1}, "image_size = -1; it must be a whole number"),
        ({"image_size": 15}, "cannot be squeezed"),
    ],
)
def test_settings_that_cannot_be(change: dict, sentence: str, tmp_path: Path) -> None:
    folder = copied(FULL, tmp_path / "logs", SETTINGS | change)
    with pytest.raises(GlowError) as raised:
        convert(folder)
    assert sentence in str(raised.value)
    assert str(tmp_path / "logs") in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("lr", value) for value in ("1e-3", 1e300, 10**400, 0, math.nan, True)),
        *(("n_batch_train", value) for value in (True, 0, 64.0, 2**30)),
        *(("polyak_epochs", value) for value in (-1, 0)),
        ("epochs_warmup", -1),
        ("train_its", 0),
        ("weight_y", "none"),
    ],
)
def test_settings_of_the_training_that_cannot_be_take_the_default(
    name: str, value: object, tmp_path: Path
) -> None:
    nameless = {key: said for key, said in SETTINGS.items() if key != name}
    found = convert(copied(FULL, tmp_path / "wrong", SETTINGS | {name: value}))
    wanted = convert(copied(FULL, tmp_path / "nameless", nameless))
    assert found.config == wanted.config
    notes = [note for note in found.notes if f"Its settings say {name} = " in note]
    assert len(notes) == 1
    assert same_models(found.model, wanted.model)


def test_a_flag_stands_in_for_a_setting_that_cannot_be(tmp_path: Path) -> None:
    folder = copied(FULL, tmp_path / "logs", SETTINGS | {"image_size": -1, "n_bits_x": "5"})
    found = convert(folder, image_size=16, n_bits=5)
    assert found.config.model == convert(FULL).config.model
    assert sum("It is not used" in note for note in found.notes) == 2


def test_a_weight_by_a_flag(tmp_path: Path) -> None:
    with pytest.raises(GlowError, match=r"weight_y = 0.01, which is 0.014427 in nats .* log 2"):
        convert(CONDITIONAL, y_weight=0.01)
    numbers: Any = {"image_size": np.int64(16), "n_bits": np.int32(5), "y_weight": np.float32(0.5)}
    bare = copied(CONDITIONAL, tmp_path / "bare")
    assert convert(bare, **numbers).config.training.y_weight == 0.5
    bare = copied(FULL, tmp_path / "without")
    found = convert(bare, **numbers)
    assert found.config == convert(bare, image_size=16, n_bits=5).config
    assert [note for note in found.notes if "--y_weight is left out" in note]


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({"n_batch_train": 64, "local_batch_train": 16, "n_train": 50_000, "train_its": 98}, 128),
        ({"n_batch_train": 64, "local_batch_train": 64, "n_train": 50_000, "train_its": 157}, 320),
        ({"n_batch_train": 64, "local_batch_train": 64, "n_train": 50_000, "train_its": 782}, 64),
        ({"n_batch_train": 64, "local_batch_train": None, "n_train": None}, 64),
        ({"n_batch_train": 64, "local_batch_train": "x", "n_train": -5}, 64),
        ({"n_batch_train": 64, "n_train": 2**40, "train_its": 1}, 64),
    ],
)
def test_a_batch_is_of_all_devices(change: dict, size: int, tmp_path: Path) -> None:
    found = convert(copied(FULL, tmp_path / "logs", SETTINGS | change))
    assert found.config.training.batch_size == size


@pytest.mark.parametrize(
    ("problem", "category", "dataset"),
    [
        ("cifar10", "", "cifar10"),
        ("lsun", "church_outdoor", "lsun/church_outdoor"),
        ("lsun", "nonsense", None),
        ("lsun", "", None),
        ("lsun", ["tower"], None),
        ("mnist", "", None),
        ("imagenet", "", None),
    ],
)
def test_the_images_it_was_trained_on(
    problem: str, category: object, dataset: str | None, tmp_path: Path
) -> None:
    settings = SETTINGS | {"problem": problem, "category": category}
    found = convert(copied(FULL, tmp_path / "logs", settings))
    assert found.names_images == (dataset is not None)
    assert found.config.data.dataset == dataset or not found.names_images
    assert any("give --dataset" in note for note in found.notes) == (dataset is None)
    assert any("padded to 32 x 32" in note for note in found.notes) == (problem == "mnist")


def test_the_last_line_names_no_images_that_nothing_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, problem in enumerate(["cifar10", "mnist"]):
        folder = copied(FULL, tmp_path / problem, SETTINGS | {"problem": problem})
        arguments = (folder, "--output", tmp_path / f"{number}", "--no_check")
        assert exit_status(from_openai, monkeypatch, *arguments) == 0
        dataset = "cifar10" if problem == "cifar10" else "DATA"
        assert f"--dataset {dataset} --no_average" in capsys.readouterr().out


def test_a_shuffled_model_without_its_orders(tmp_path: Path) -> None:
    arrays = {k: v for k, v in read_all(SHUFFLED).items() if "/shuffle/" not in k}
    settings = json.loads((SHUFFLED / "train.txt").read_text().split("\n")[0])
    with pytest.raises(GlowError, match=r"'model/0/0/shuffle/indices', are missing"):
        convert(write(tmp_path / "said", arrays, settings))
    found = convert(write(tmp_path / "bare", arrays), image_size=8, n_bits=8)
    assert [note for note in found.notes if "order is taken to be reversed" in note]
    del settings["flow_permutation"]
    found = convert(write(tmp_path / "silent", arrays, settings))
    assert [note for note in found.notes if "order is taken to be reversed" in note]
    assert not [note for note in convert(SHUFFLED).notes if "reversed" in note]


def test_unknown_settings_are_ignored_and_others_change_the_run(tmp_path: Path) -> None:
    settings = SETTINGS | {"beta3": 1, "shift": [], "problem": "lsun_realnvp", "category": "tower"}
    settings |= {"polyak_epochs": 2, "lr": 5e-4, "local_batch_train": 64, "optimizer": "adam"}
    found = convert(write(tmp_path / "logs", read_all(FULL), settings))
    config = found.config
    assert (config.data.dataset, config.training.batch_size) == ("lsun/tower", 64)
    assert (config.optimizer.lr, config.optimizer.ema_decay) == (5e-4, 1 - 1 / 40)
    assert found.optimizer_state is None
    assert any("of adam, not of adamax" in note for note in found.notes)
    settings |= {"problem": "../../etc", "category": "../x"}
    again = convert(write(tmp_path / "logs", read_all(FULL), settings))
    assert again.config.data.dataset == "cifar10"
