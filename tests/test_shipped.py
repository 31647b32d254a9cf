"""The models in `models/` open, are what their files say, and show the published finding."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from sklearn.metrics import roc_auc_score

import glow_jax
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import Config, to_json
from glow_jax.config.presets import PRESETS
from glow_jax.data import InMemory
from glow_jax.devices import Devices
from glow_jax.evaluation.likelihood import likelihood, reconstruction
from glow_jax.evaluation.samples import labels_in_turn, sample_pixels
from glow_jax.hub import PublishedRun, load_run

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = REPOSITORY / "models" / "fashion_mnist"
# The first 500 test images of Fashion-MNIST and of MNIST.
IMAGES = Path(__file__).parent / "data" / "garments_and_digits.npz"
# Bits/dim of so many of them.
BITS = {100: (2.88716, 1.73774), 500: (2.99172, 1.71656)}


@pytest.fixture(scope="module")
def model() -> glow_jax.Glow:
    return glow_jax.load(MODEL)


def section_of(config: Config, section: str) -> dict[str, object]:
    values = to_json(config)[section]
    assert isinstance(values, dict)
    return values


def test_it_is_what_its_files_say(model: glow_jax.Glow) -> None:
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert parameters < 5e6
    run = load_run(MODEL)
    assert isinstance(run, PublishedRun)
    assert run.results is not None
    assert run.license == "mit"
    results, last = run.results, run.rows[-1]
    assert run.step == results["step"] == last["step"]
    assert results["images"] == 10_000
    assert results["bits_per_dim"] == pytest.approx(2.9946, abs=5e-5)
    assert results["bits_per_dim"] == pytest.approx(last["test_bits_per_dim"], abs=1e-4)
    # Its second training, from the weights of the first, which was the preset's.
    changed = {"optimizer": {"lr"}, "training": {"seed", "epochs", "saved_model"}}
    for section in ("model", "optimizer", "training"):
        preset = section_of(PRESETS["fashion_mnist-small"], section)
        ours = section_of(run.config, section)
        differ = {name for name in ours if ours[name] != preset[name]}
        assert differ == changed.get(section, set()), section


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in MODEL.parent.glob("*/config.json"))
)
def test_the_commands_on_each_page_are_those_of_the_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(MODEL, tmp_path / "runs" / "first")  # where a command starts from other weights
    monkeypatch.chdir(tmp_path)
    folder = MODEL.parent / name
    card, docs = ((folder / "README.md"), REPOSITORY / "docs" / "models.md")
    (on_card,) = _training_lines(card)
    (in_docs,) = (one for one in _training_lines(docs) if one.endswith(f"runs/{name}"))
    ours = load_run(folder).config
    shape = {"image_shape": ours.model.image_shape, "y_classes": ours.model.y_classes}
    for line in (on_card, in_docs):
        stated = parse_training(shlex.split(line)[2:])
        assert dataclasses.replace(stated.model, **shape) == ours.model
        # The weights that a training starts from lie in another folder for everyone.
        began = dataclasses.replace(ours.training, saved_model=stated.training.saved_model)
        assert (stated.optimizer, stated.training) == (ours.optimizer, began)
        assert stated.data.dataset == ours.data.dataset
        assert stated.data.validation == ours.data.validation


def _training_lines(page: Path) -> list[str]:
    lines = page.read_text().splitlines()
    return [line for line in lines if line.startswith("glow-jax train")]


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_it_finds_digits_likelier_than_garments(count: int, model: glow_jax.Glow) -> None:
    devices, bits = Devices(1), {}
    with np.load(IMAGES) as file:
        for name in ("garments", "digits"):
            images = file[name][:count, ..., None]
            split = InMemory(images, np.empty((len(images), 0), np.int32))
            bits[name] = likelihood(model, split, devices, batch_size=100).bits_per_dim
    garments, digits = BITS[count]
    assert bits["garments"].mean() == pytest.approx(garments, abs=5e-4)
    assert bits["digits"].mean() == pytest.approx(digits, abs=5e-4)
    expected = json.loads((MODEL / "config.json").read_text())["results"]["bits_per_dim"]
    # The standard error of the mean of 500 images is 0.03, of 100 it is 0.07.
    assert bits["garments"].mean() == pytest.approx(expected, abs=0.12 if count == 500 else 0.28)
    is_inside = np.repeat([1, 0], [len(values) for values in bits.values()])
    assert roc_auc_score(is_inside, -np.concatenate(list(bits.values()))) < 0.4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("mnist", "digits"), ("fashion_mnist", "garments")])
def test_others_give_images_back_and_have_their_bits(name: str, kind: str) -> None:
    run = load_run(MODEL.parent / name)
    assert isinstance(run, PublishedRun)
    assert run.results is not None
    with np.load(IMAGES) as file:
        images = file[kind][:, ..., None]
    split, devices = InMemory(images, np.empty((len(images), 0), np.int32)), Devices(1)
    bits = likelihood(run.model, split, devices, batch_size=100).bits_per_dim
    # The standard error of the mean of 500 garments is 0.04, of 500 digits 0.02; these digits are
    # among those that the model was trained on.
    assert bits.mean() == pytest.approx(run.results["bits_per_dim"], abs=0.12)
    assert reconstruction(run.model, split, devices, batch_size=100).images_off == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion_mnist_classes", "fashion_mnist_groups"])
def test_models_that_are_told_labels_draw_and_measure(name: str) -> None:
    run = load_run(MODEL.parent / name)
    y = labels_in_turn(run.model, 20, run.data)
    pixels = sample_pixels(run.model, jax.random.key(0), 20, temperature=0.7, y=y)
    bits = run.model.bits_per_dim(run.model.dequantize(pixels, jax.random.key(1)), y)
    # What it draws at a low temperature is likelier than what it was trained on.
    assert isinstance(run, PublishedRun)
    assert run.results is not None
    assert 0 < float(bits.mean()) < float(str(run.results["bits_per_dim"]))
