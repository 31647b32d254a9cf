"""A run knows its images: how many, their classes, and which."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glow_jax.cli.training_flags import parse_training
from glow_jax.config import Config, DataConfig, ModelConfig, OutputConfig
from glow_jax.data import from_arrays, load_dataset
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.evaluation.same_data import check_same_data, data_of
from glow_jax.evaluation.samples import class_number
from glow_jax.model import abstract_glow
from glow_jax.runs import LoadedRun, RunData, read_config, read_data, write_config, write_data

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
    ("content", "damage"),
    [
        ("", "it is no valid JSON"),
        ("no json", "it is no valid JSON"),
        ("[" * 100_000, "it is no valid JSON"),
        ("9" * 5000, "it is no valid JSON"),
        (b"\xff\xfe", "it is no valid JSON"),
        ("[]", r"data is \[\]; it must be an object with named fields"),
        ('"x"', "data is 'x'; it must be an object with named fields"),
        ("{}", "data has no field training_images"),
        ('{"more": 3}', "data has a field 'more' that glow_jax does not know"),
    ],
)
def test_damaged_knowledge_is_named(run: Config, content: str | bytes, damage: str):
    path = Path(run.output.output_dir) / "data.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GlowError, match=rf"data\.json is damaged: {damage}; remove it to go on"):
        read_data(path.parent)


def test_values_of_other_types_are_damage(run: Config):
    path = Path(run.output.output_dir) / "data.json"
    values = json.loads(path.read_text())
    for name, value, shown in (
        ("training_images", "18", "'18'; it must be int"),
        ("classes", True, "True; it must be int"),
        ("classes", 10**30, ".*, which is too large"),
        ("class_names", [1], r"\[1\]; it must be"),
        ("image_shape", 3, "3; it must be"),
        ("image_shape", None, "None; it must be"),
    ):
        path.write_text(json.dumps({**values, name: value}))
        with pytest.raises(GlowError, match=f"is damaged: data.{name} is {shown}"):
            read_data(path.parent)


def test_what_is_no_file_is_refused(run: Config, tmp_path: Path):
    path = Path(run.output.output_dir) / "data.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(GlowError, match=r"data\.json is a symbolic link"):
        read_data(path.parent)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(GlowError, match=r"data\.json is no regular file"):
        read_data(path.parent)
    path.unlink()
    path.mkdir()
    with pytest.raises(GlowError, match=r"data\.json is no regular file"):
        read_data(path.parent)


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
        ({"test_images": 1}, "has 18 and 1: give the folder or file of the same images"),
        ({"class_names": ("ant", "cow")}, "classes ant, bee, and folder:new has ant, cow: give"),
        ({"classes": 3, "class_names": ()}, "classes ant, bee, and folder:new has 3: give"),
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


# Evaluation


def arrays(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    np.savez(path, images=images, labels=labels)
    return str(path)


@pytest.fixture
def trained(tmp_path: Path) -> LoadedRun:
    """A run on 40 images of 3 classes, in a file; nothing but its folder's JSON files is there."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8), np.arange(40) % 3
    name = arrays(tmp_path / "own.npz", images, labels)
    model = ModelConfig(L=1, image_shape=(4, 4, 1), y_condition=True, y_classes=3)
    config = Config(model=model, data=DataConfig(dataset=name))
    write_config(tmp_path / "run", config)
    write_data(tmp_path / "run", data_of(load_dataset(config.data)))
    model = abstract_glow(config.model)
    return LoadedRun(tmp_path / "run", config, 0, model, None, False, {})


CHANGES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "was started with 36 training and 4 test images, and": lambda x, y: (x[:33], y[:33]),
    "does not hold the images that": lambda x, y: (x[::-1], y[::-1]),
    "although their number is the same": lambda x, y: (x, (y + 1) % 3),
    "was started with the classes 3, and": lambda x, y: (x, y % 2),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_run_is_not_evaluated_on_its_own_images_once_they_have_changed(
    message: str, trained: LoadedRun, capsys: pytest.CaptureFixture[str]
):
    name = Path(trained.config.data.dataset)
    assert len(dataset_of(trained).test) == 4
    with np.load(name) as file:
        images, labels = CHANGES[message](file["images"], file["labels"])
    arrays(name, images, labels)
    with pytest.raises(GlowError, match=message) as error:
        dataset_of(trained)
    assert f"bring the same images back, or, without --ood, give --dataset {name}" in str(
        error.value
    )
    assert capsys.readouterr().err == ""


def test_other_images_that_are_asked_for_are_evaluated_with_a_note(
    trained: LoadedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with np.load(trained.config.data.dataset) as file:
        images, labels = file["images"], file["labels"]
    moved = arrays(tmp_path / "moved.npz", images, labels)
    for name in (trained.config.data.dataset, moved):
        dataset_of(trained, name)
    assert capsys.readouterr().err == ""
    fewer = arrays(tmp_path / "fewer.npz", images[:33], labels[:33])
    assert len(dataset_of(trained, fewer).test) == 3
    assert capsys.readouterr().err == (
        f"note: {trained.folder} was started with 36 training and 4 test images, and {fewer} has "
        "30 and 3; if they share images, the run may have been trained on these test images.\n"
    )


def test_evaluation_refuses_what_resuming_refuses(trained: LoadedRun):
    (trained.folder / "data.json").write_text('"x"')
    with pytest.raises(GlowError, match=r"data\.json is damaged"):
        dataset_of(trained)
    (trained.folder / "data.json").unlink()
    assert len(dataset_of(trained).test) == 4


# Names of classes


def test_a_class_is_taken_by_its_name_or_its_number():
    names = ("ant", "bee")
    assert [class_number(label, names, 2) for label in ("ant", "bee", "0", "1")] == [0, 1, 0, 1]
    for label in ("2", "-1", "²", "cow", "9" * 5000):
        with pytest.raises(GlowError, match=r"classes are numbered 0\.\.1, and have names such as"):
            class_number(label, names, 2)
    with pytest.raises(GlowError, match="The nearest name is bee"):
        class_number("beee", names, 2)
    # Where names are numbers, names go first.
    assert [class_number(label, ("1", "10", "2"), 3) for label in ("1", "10", "2", "0")] == [
        0,
        1,
        2,
        0,
    ]
    assert class_number("1", (), 3) == 1


def test_a_folder_of_glow_pytorch_gets_a_hint(tmp_path: Path):
    (tmp_path / "glow_checkpoint_9.pt").write_bytes(b"weights")
    with pytest.raises(GlowError, match=r"convert/from_torch\.py .*glow_checkpoint_9\.pt makes"):
        read_config(tmp_path)
    (tmp_path / "hparams.json").write_text('{"dataset": "cifar10", "dataroot": "./"}')
    with pytest.raises(GlowError, match=r"convert/from_torch\.py .*glow_checkpoint_9\.pt makes"):
        read_config(tmp_path)
