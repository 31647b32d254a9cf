"""What others have prepared: nothing that a file says is imported, and nothing is written there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from photographs import load
from PIL import Image

from glow_jax.cli.train import _images
from glow_jax.config import Config, DataConfig, ModelConfig, OutputConfig
from glow_jax.data import load_dataset
from glow_jax.data.sources import tfds_prepare
from glow_jax.data.sources.tfds_builder import open_builder
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.ood.images import load_images
from glow_jax.runs import LoadedRun

PREPARED = Path(__file__).resolve().parent / "prepared"


@pytest.fixture
def dataroot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared data sets, beside a module that must never be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "payload.py").write_text("raise SystemExit('code ran')\n")
    shutil.copytree(PREPARED, tmp_path / "data")
    return tmp_path / "data"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Code


@pytest.mark.parametrize(
    "name",
    [
        "payload.X",
        "os.X",
        "tensorflow_datasets.core.features.payload.X",
        "tensorflow_datasets.core.features.image_feature.Image.X",
        "",
    ],
)
def test_no_class_of_a_features_file_is_imported(dataroot: Path, name: str):
    path = dataroot / "svhn_cropped" / "3.1.0" / "features.json"

    def change(values: Any) -> None:
        values["featuresDict"]["features"]["id"]["pythonClassName"] = name

    edit(path, change)
    with pytest.raises(GlowError, match=r"names the class .*, which is no feature of images"):
        load("svhn_cropped", dataroot)
    assert "payload" not in sys.modules


def test_nor_that_of_an_older_format_or_of_another_configuration(dataroot: Path):
    path = dataroot / "cifar10" / "3.0.2" / "features.json"
    path.write_text(json.dumps({"type": "payload.X", "content": {}}))
    with pytest.raises(GlowError, match=r"names the class payload\.X"):
        load("cifar10", dataroot)
    # tensorflow-datasets reads configurations and versions that it does not know from files.
    for name in ("mnist_corrupted/evil", "mnist_corrupted/evil:1.0.0", "lsun/evil"):
        base, _, configuration = name.partition("/")
        place = dataroot / base / configuration.partition(":")[0] / "1.0.0"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copytree(PREPARED / "svhn_cropped" / "3.1.0", place, dirs_exist_ok=True)
        with pytest.raises(GlowError):
            load(name, dataroot)
        (place / "features.json").write_text(json.dumps({"type": "payload.X", "content": {}}))
        with pytest.raises(GlowError):
            load(name, dataroot)
    assert "payload" not in sys.modules


def test_features_are_those_of_the_library(dataroot: Path):
    """Even where a file says otherwise in classes that are allowed."""
    path = dataroot / "svhn_cropped" / "3.1.0" / "features.json"

    def change(values: Any) -> None:
        values["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "5"

    edit(path, change)
    assert load("svhn_cropped", dataroot).classes == 10


@pytest.mark.parametrize(
    "content", ["[" * 200_000, "no json", "[" * 50 + "]" * 50, "{}" + " " * (17 << 20)]
)
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_damaged_descriptions_are_one_sentence(dataroot: Path, content: str, name: str):
    (dataroot / "cifar10" / "3.0.2" / name).write_text(content)
    with pytest.raises(GlowError, match=r"is damaged|above|nested"):
        load("cifar10", dataroot)


def test_files_are_not_followed_out_of_their_folder(dataroot: Path):
    folder = dataroot / "cifar10" / "3.0.2"

    def change(values: Any) -> None:
        values["splits"][0]["filepathTemplate"] = "/etc/{DATASET}-{SPLIT}"

    edit(folder / "dataset_info.json", change)
    with pytest.raises(GlowError, match="names files outside its folder: /etc/"):
        load("cifar10", dataroot)
    os.mkfifo(dataroot / "svhn_cropped" / "3.1.0" / "pipe")
    with pytest.raises(GlowError, match="a pipe or a device: remove it"):
        load("svhn_cropped", dataroot)


def test_names_of_classes_come_with_prepared_data(dataroot: Path):
    assert load("cifar10", dataroot).class_names[0] == "class0"
    with pytest.raises(GlowError, match="give NAME or NAME/CONFIGURATION"):
        open_builder("../cifar10", str(dataroot))


def test_preparing_looks_for_no_module_in_the_working_folder(
    dataroot: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("tensorflow_datasets.py", "glow_jax.py"):
        (dataroot.parent / name).write_text("raise SystemExit('code ran')\n")
    real, found = subprocess.run, []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        names = "'glow_jax', 'tensorflow_datasets'"
        program = f"from importlib.util import find_spec\nprint(*map(find_spec, ({names})))"
        done = real([*command[: command.index("-m")], "-c", program], **options)
        found.append(done.stdout)
        return done

    monkeypatch.setattr(subprocess, "run", run)
    builder = SimpleNamespace(name="cifar10", builder_config=None)
    tfds_prepare._run(cast("Any", builder), "cifar10", str(dataroot))
    assert found[0].count("ModuleSpec") == 2
    assert str(dataroot.parent) not in found[0]


# Writing


def run_of(dataset: str, dataroot: Path, shape: tuple[int, int, int] = (32, 32, 3)) -> LoadedRun:
    """A run of a stranger that names a data set."""
    data = DataConfig(dataset=dataset, dataroot=str(dataroot), download=True)
    config = Config(model=ModelConfig(L=1, image_shape=shape), data=data)
    run = SimpleNamespace(config=config, folder=Path("run"), name="run", data=None)
    return cast("LoadedRun", run)


def test_a_run_names_its_data_which_is_read_and_not_written(dataroot: Path):
    run, before = run_of("cifar10", dataroot), snapshot(dataroot)
    first = dataset_of(run)
    assert len(first.train) == 40
    assert snapshot(dataroot) == before
    kept = dataroot.parent / "cache" / "glow_jax" / "decoded"
    assert len(list(kept.rglob("images.npy"))) == 2
    np.testing.assert_array_equal(
        dataset_of(run).train[np.arange(40)].images, first.train[np.arange(40)].images
    )
    load_images(run.config, "svhn", dataroot=None, download=True)
    assert snapshot(dataroot) == before
    # The user's own --dataroot may be written.
    dataset_of(run, dataroot=str(dataroot))
    assert (dataroot / "decoded").is_dir()


def test_what_a_run_names_and_is_missing_is_asked_for(
    dataroot: Path, monkeypatch: pytest.MonkeyPatch
):
    def prepare(*_: object) -> None:
        raise AssertionError("prepared where a run says")

    monkeypatch.setattr("glow_jax.data.sources.tfds.prepare_apart", prepare)
    elsewhere = dataroot.parent / "elsewhere"
    with pytest.raises(GlowError, match=r"elsewhere, the dataroot that the run names: give --data"):
        dataset_of(run_of("cifar10", elsewhere))
    with pytest.raises(GlowError, match="the run names: give --dataroot"):
        load_images(run_of("cifar10", elsewhere).config, "mnist", dataroot=None, download=True)
    assert not elsewhere.exists()
    shard = next((dataroot / "cifar10" / "3.0.2").glob("*train.array_record*"))
    shard.write_bytes(shard.read_bytes()[:1000])
    before = snapshot(dataroot)
    with pytest.raises(
        GlowError, match=r"is damaged .*, and the run names its folder: give --data"
    ):
        dataset_of(run_of("cifar10", dataroot))
    assert snapshot(dataroot) == before


def test_a_resumed_run_writes_only_where_the_user_says(dataroot: Path):
    run, before = run_of("cifar10", dataroot), snapshot(dataroot)
    resumed = replace(run.config, output=OutputConfig(resume=True))
    assert len(_images(resumed, ["--resume"]).train) == 40
    assert snapshot(dataroot) == before
    _images(resumed, ["--resume", f"--dataroot={dataroot}"])
    assert (dataroot / "decoded").is_dir()


def test_a_resumed_run_keeps_its_channels(dataroot: Path):
    pictures = dataroot.parent / "grey"
    pictures.mkdir()
    for number in range(10):
        Image.new("L", (8, 8), number).save(pictures / f"{number}.png")
    run = run_of(f"folder:{pictures}", dataroot, (8, 8, 3))
    data = replace(run.config.data, image_size=8)
    resumed = replace(run.config, data=data, output=OutputConfig(resume=True))
    assert _images(resumed, ["--resume"]).image_shape == (8, 8, 3)
    assert _images(replace(resumed, output=OutputConfig()), []).image_shape == (8, 8, 1)


def test_a_kept_image_file_is_not_believed(dataroot: Path):
    """Where a huge shape is promised, or there is no array but a pipe, images are decoded anew."""
    config = DataConfig(dataset="cifar10", dataroot=str(dataroot))
    first = load_dataset(config)
    place = dataroot / "decoded" / "cifar10-32" / "train"
    huge = b"{'descr': '|u1', 'fortran_order': False, 'shape': (40, 99999999, 32, 3)}\n"

    def write(header: bytes) -> None:
        (place / "images.npy").write_bytes(b"\x93NUMPY\1\0" + bytes([len(header), 0]) + header)

    for damage in (
        lambda: write(huge),
        lambda: write(b"{'descr': ("),
        lambda: write(b"(" * 250),
        lambda: (os.remove(place / "labels.npy"), os.mkfifo(place / "labels.npy")),
    ):
        damage()
        again = load_dataset(config)
        np.testing.assert_array_equal(
            again.train[np.arange(40)].images, first.train[np.arange(40)].images
        )
