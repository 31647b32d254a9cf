"""The settings of openai/glow: by `train.txt` or by flags, and against the variables."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from openai_cases import CONDITIONAL, FULL, SETTINGS, write
from openai_files import read_all, write_graph

from glow_jax import GlowError
from glow_jax.bridge.from_openai import convert


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
    write_graph(
        tmp_path / "graph.pb", {**arrays, "model/0/0/f1/l_1/Const": np.ones((1, 18, 18, 1))}
    )
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
        ({"n_bits_x": 9}, "n_bits is 9"),
        ({"n_bits_x": "8"}, "n_bits_x = 8; it must be a number"),
        ({"n_bits_x": True}, "n_bits_x = True"),
        ({"image_size": 10**30}, "image_size is 1"),
        ({"image_size": 15}, "cannot be squeezed"),
        ({"lr": "fast"}, "lr = fast; it must be a number"),
        ({"lr": 1e300}, "lr = 1e"),
        ({"lr": 10**400}, "lr = a whole number of 1329 bits; it must be from 0"),
        ({"lr": 0}, "lr is 0"),
        ({"n_batch_train": True}, "n_batch_train is True; it must be a whole number from 1"),
        ({"n_batch_train": 2**30}, "n_batch_train is 1073741824"),
        ({"polyak_epochs": -1}, "polyak_epochs = -1"),
    ],
)
def test_settings_that_cannot_be(change: dict, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for path in FULL.glob("model_best_loss.ckpt.*"):
        shutil.copy(path, tmp_path / "logs")
    (tmp_path / "logs" / "train.txt").write_text(json.dumps(SETTINGS | change))
    with pytest.raises(GlowError) as raised:
        convert(tmp_path / "logs")
    assert sentence in str(raised.value)
    assert str(tmp_path / "logs") in str(raised.value)


def test_unknown_settings_are_ignored_and_others_change_the_run(tmp_path: Path) -> None:
    settings = SETTINGS | {"beta3": 1, "shift": [], "problem": "lsun_realnvp", "category": "tower"}
    settings |= {"polyak_epochs": 2, "lr": 5e-4, "n_batch_train": 64, "optimizer": "adam"}
    found = convert(write(tmp_path / "logs", read_all(FULL), settings))
    config = found.config
    assert (config.data.dataset, config.training.batch_size) == ("lsun/tower", 64)
    assert (config.optimizer.lr, config.optimizer.ema_decay) == (5e-4, 1 - 1 / 40)
    assert found.optimizer_state is None
    assert any("of adam, not of adamax" in note for note in found.notes)
    settings |= {"problem": "../../etc", "category": "../x"}
    again = convert(write(tmp_path / "logs", read_all(FULL), settings))
    assert again.config.data.dataset == "cifar10"
