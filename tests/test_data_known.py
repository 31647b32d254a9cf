"""A run knows its images: how many, their classes, and which."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from glow_jax.cli.sample import _class_number
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import Config, DataConfig, OutputConfig
from glow_jax.data import from_arrays
from glow_jax.errors import GlowError
from glow_jax.runs import RunData, read_config, read_data, write_config, write_data
from glow_jax.training.same_data import check_same_data, data_of

DATA = RunData(18, 2, (8, 8, 1), 2, ("ant", "bee"), "mark")


@pytest.fixture
def run(tmp_path: Path) -> Config:
    output = OutputConfig(output_dir=str(tmp_path / "run"))
    config = Config(data=DataConfig(dataset="folder:old"), output=output)
    write_config(tmp_path / "run", config)
    write_data(tmp_path / "run", DATA)
    return config


def moved(run: Config, name: str = "folder:new") -> Config:
    return dataclasses.replace(run, data=dataclasses.replace(run.data, dataset=name))


def test_a_run_keeps_what_it_knows(run: Config):
    folder = Path(run.output.output_dir)
    assert read_data(folder) == DATA
    assert "ant" in (folder / "data.json").read_text()


@pytest.mark.parametrize(
    "content",
    ["", "no json", "[]", "{}", "[" * 100_000, '{"fingerprint": 3}', b"\xff\xfe"],
)
def test_damaged_knowledge_is_named(run: Config, content: str | bytes):
    path = Path(run.output.output_dir) / "data.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GlowError, match=r"data\.json is damaged .*: remove it"):
        read_data(path.parent)


def test_values_of_other_types_are_damage(run: Config):
    path = Path(run.output.output_dir) / "data.json"
    values = json.loads(path.read_text())
    for name, value in (("training_images", "18"), ("class_names", [1]), ("image_shape", 3)):
        path.write_text(json.dumps({**values, name: value}))
        with pytest.raises(GlowError, match="is damaged"):
            read_data(path.parent)


def test_a_link_is_not_read(run: Config, tmp_path: Path):
    path = Path(run.output.output_dir) / "data.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert read_data(path.parent) is None
    path.unlink()
    os.mkfifo(path)
    assert read_data(path.parent) is None


@pytest.mark.parametrize("name", ["folder:old", "folder:new"])
def test_the_same_images_go_on_wherever_they_are(run: Config, name: str):
    check_same_data(moved(run, name), DATA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"training_images": 30},
            "started with 18 training and 2 test images, and .* has 30 and 2",
        ),
        ({"test_images": 1}, "has 18 and 1 now: bring the same images back"),
        ({"class_names": ("ant", "cow")}, "classes ant, bee, and folder:new has ant, cow now"),
        ({"classes": 3, "class_names": ()}, "classes ant, bee, and folder:new has 3 now"),
        ({"fingerprint": "other"}, "folder:new does not hold the images that .* was started with"),
    ],
)
def test_other_images_are_one_sentence(run: Config, change: dict[str, object], message: str):
    with pytest.raises(GlowError, match=message):
        check_same_data(moved(run), dataclasses.replace(DATA, **change))  # pyright: ignore[reportArgumentType]


def test_a_run_that_knows_nothing_keeps_its_data_set(run: Config):
    (Path(run.output.output_dir) / "data.json").unlink()
    check_same_data(run, DATA)
    with pytest.raises(GlowError, match="dataset = folder:old, which cannot become folder:new"):
        check_same_data(moved(run), DATA)


def test_resume_takes_another_place(run: Config):
    arguments = ["--output_dir", run.output.output_dir, "--resume", "--dataset", "folder:new"]
    config = parse_training(arguments)
    assert config.data.dataset == "folder:new"
    assert read_config(run.output.output_dir).data.dataset == "folder:old"


def test_arrays_have_a_fingerprint_of_their_pixels_and_labels():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    labels = np.arange(20) % 3
    first = data_of(from_arrays("x", images, labels))
    assert first == data_of(from_arrays("other name", images.copy(), labels))
    changed = images.copy()
    changed[7, 2, 2] ^= 1
    others = [
        data_of(from_arrays("x", changed, labels)),
        data_of(from_arrays("x", images, np.roll(labels, 1))),
    ]
    assert all(one.fingerprint != first.fingerprint for one in others)


# Names of classes


def test_a_class_is_taken_by_its_name_or_its_number(run: Config, tmp_path: Path):
    folder = Path(run.output.output_dir)
    assert [_class_number(label, 2, folder) for label in ("ant", "bee", "0", "1")] == [0, 1, 0, 1]
    for label in ("2", "-1", "²", "cow", "9" * 5000):
        with pytest.raises(GlowError, match=r"labels of this model lie in 0\.\.1, and have names"):
            _class_number(label, 2, folder)
    with pytest.raises(GlowError, match="The nearest name is bee"):
        _class_number("beee", 2, folder)
    # Where names are numbers, names go first.
    write_data(folder, dataclasses.replace(DATA, classes=3, class_names=("1", "10", "2")))
    assert [_class_number(label, 3, folder) for label in ("1", "10", "2", "0")] == [0, 1, 2, 0]
    assert _class_number("1", 3, tmp_path) == 1


def test_a_folder_of_glow_pytorch_gets_a_hint(tmp_path: Path):
    (tmp_path / "glow_checkpoint_9.pt").write_bytes(b"weights")
    with pytest.raises(GlowError, match=r"convert/from_torch\.py .*glow_checkpoint_9\.pt makes"):
        read_config(tmp_path)
    (tmp_path / "hparams.json").write_text('{"dataset": "cifar10", "dataroot": "./"}')
    with pytest.raises(GlowError, match=r"convert/from_torch\.py .*glow_checkpoint_9\.pt makes"):
        read_config(tmp_path)
