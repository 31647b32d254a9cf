"""Model folders, and a hub on this machine: there and back, damage, and what a card says."""

import dataclasses
import hashlib
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small_models
from flax import nnx
from hub_server import Hub, serving
from small_models import CONFIGS
from training_runs import error_of, run_script, train, two_epochs

import glow_jax
import glow_jax.demo
import train as train_script
from glow_jax import Glow, GlowError
from glow_jax.cli.demo import main as demo
from glow_jax.cli.directions import main as directions
from glow_jax.cli.from_hub import main as from_hub
from glow_jax.cli.sample import main as sample
from glow_jax.cli.to_hub import main as to_hub
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    to_json,
)
from glow_jax.config.command_line import training_flags
from glow_jax.demo.desk import OTHERS, Desk
from glow_jax.hub import load_run, model_name, read_config
from glow_jax.hub.model_folder import without_paths
from glow_jax.hub.weights import _free_memory
from glow_jax.model import weights_digest
from glow_jax.publishing import contents_of_run
from glow_jax.publishing.card import Card, Training
from glow_jax.publishing.results import Measured, measured_of
from glow_jax.runs import (
    RunData,
    read_data,
    read_metrics,
    read_results,
    save_weights,
    write_results,
)
from glow_jax.runs import load_run as load_run_folder
from glow_jax.runs import read_config as read_run_config

REPOSITORY = Path(__file__).resolve().parents[1]
NAME = "somebody/tiny"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
Change = Callable[[dict[str, Any]], object]


def scale_bias(model: Glow, factor: float) -> None:
    """Change one parameter in place."""
    bias = model.levels[0].steps.actnorm.bias
    bias[...] = bias[...] * factor


def arrays_of(model: Glow) -> dict[str, np.ndarray]:
    state = nnx.to_flat_state(nnx.state(model))
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in state}


def assert_same(one: Glow, other: Glow) -> None:
    """Bit for bit, and of the same types."""
    ours, theirs = arrays_of(one), arrays_of(other)
    assert ours.keys() == theirs.keys()
    assert one.config == other.config
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        assert array.tobytes() == theirs[name].tobytes(), name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with averaged parameters, and results as `eval.py` writes them."""
    folder = tmp_path_factory.mktemp("hub") / "digits"
    shutil.copytree(two_epochs(tmp_path_factory), folder)
    results = {
        **{"dataset": "digits", "split": "test", "images": 360, "step": load_run(folder).step},
        **{"averaged_parameters": True, "bits_per_dim": 3.5, "standard_error": 0.0123},
    }
    write_results(folder, results)
    return folder


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of that run, which is not to be changed."""
    folder = tmp_path_factory.mktemp("published") / "tiny"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_script(to_hub, monkeypatch, run, "--output", folder, "--license", "cc0-1.0")
    return folder


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(published, tmp_path / "tiny"))


# There and back


EVERYDAY = "conditional_shuffle"  # with orders of channels, which are no floats
every_model = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == EVERYDAY else pytest.mark.slow) for name in CONFIGS],
)


@every_model
def test_a_run_comes_back_bit_for_bit(
    name: str, randomise: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(model=ModelConfig(**{**small_models.SMALL, **CONFIGS[name]}))
    model = randomise(small_models.build(name))
    save_weights(tmp_path / "run", config, model, step=12)
    run_script(to_hub, monkeypatch, tmp_path / "run", "--output", tmp_path / "folder")
    run_script(from_hub, monkeypatch, tmp_path / "folder", "--output", tmp_path / "back")
    back = load_run_folder(tmp_path / "back")
    assert_same(model, back.model)
    assert back.step == 12
    assert back.average is None
    assert back.config.model == config.model


def test_a_trained_run_comes_back_with_all_that_it_knows(
    run: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_run_folder(run)
    assert before.average is not None
    assert_same(before.average, glow_jax.load(published))
    run_script(from_hub, monkeypatch, published, "--output", tmp_path / "back")
    after = load_run_folder(tmp_path / "back")
    assert after.average is not None
    assert_same(before.average, after.average)
    assert_same(before.average, after.model)
    assert after.step == before.step
    assert read_metrics(tmp_path / "back") == read_metrics(run)
    assert read_data(tmp_path / "back") == read_data(run)
    assert read_results(tmp_path / "back") == read_results(run)
    ours, theirs = before.config, after.config
    assert (ours.model, ours.optimizer) == (theirs.model, theirs.optimizer)
    assert dataclasses.replace(theirs.data, dataroot=ours.data.dataroot) == ours.data
    run_script(to_hub, monkeypatch, tmp_path / "back", "--output", tmp_path / "again")
    assert json.loads((published / CONFIG).read_text())["license"] == "cc0-1.0"
    for name in (CONFIG, WEIGHTS, "metrics.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (published / name).read_bytes(), name


def test_the_parameters_in_training_can_be_published_instead(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script(to_hub, monkeypatch, run, "--output", tmp_path / "average", "--license", "mit")
    assert "note:" not in capsys.readouterr().out
    run_script(to_hub, monkeypatch, run, "--no_average", "--output", tmp_path / "out")
    said = capsys.readouterr().out
    assert "note: its card states no bits/dim" in said
    assert "licence unknown\nnote: nobody has stated a licence of the weights" in said
    assert_same(load_run_folder(run).model, glow_jax.load(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / CONFIG).read_text())["weights"] == "trained"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| bits/dim | not measured |" in card  # the results are of the average
    assert "not an average" in card
    assert 'license: "unknown"\n' in card
    assert "`unknown`: nobody has stated one." in card


def test_the_file_is_one_of_safetensors_with_names_that_read(published: Path) -> None:
    from safetensors import safe_open

    with safe_open(published / WEIGHTS, "numpy") as file:
        assert set(file.keys()) == set(arrays_of(glow_jax.load(published)))
        assert "levels.0.steps.coupling.network.conv_in.kernel" in file.keys()  # noqa: SIM118
        assert {str(file.get_slice(name).get_dtype()) for name in file.keys()} <= {"F32", "I32"}  # noqa: SIM118


def test_a_later_model_replaces_an_earlier_one_and_nothing_else(
    run: Path,
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (copy / "mine.txt").write_text("kept")
    run_script(to_hub, monkeypatch, run, "--no_average", "--output", copy)
    assert_same(load_run_folder(run).model, glow_jax.load(copy))
    assert (copy / "mine.txt").read_text() == "kept"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("mine")
    said = error_of(to_hub, monkeypatch, capsys, run, "--output", tmp_path / "other")
    assert "exists and is not empty or a model folder" in said
    assert (tmp_path / "other" / "README.md").read_text() == "mine"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "files",
    [
        {CONFIG: '{"model_type": "bert"}', WEIGHTS: "bert"},
        {CONFIG: '{"my": "app"}', "README.md": "mine"},
        {CONFIG: '{"library_name": "glow-jax"}'},
        {CONFIG: "no JSON", WEIGHTS: "bert"},
        {WEIGHTS: "bert"},
    ],
)
def test_what_another_program_wrote_is_not_replaced(
    files: dict[str, str],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bert").mkdir()
    for name, text in files.items():
        (tmp_path / "bert" / name).write_text(text)
    before = files_in(tmp_path / "bert")
    said = error_of(to_hub, monkeypatch, capsys, run, "--output", tmp_path / "bert")
    assert "bert exists and is not empty or a model folder of glow-jax" in said
    with pytest.raises(GlowError, match=r"is no model folder of glow-jax, and its .* would be re"):
        small_models.build("affine_lu").save_pretrained(tmp_path / "bert")
    assert files_in(tmp_path / "bert") == before


def test_nothing_of_an_earlier_model_stays(copy: Path, tmp_path: Path) -> None:
    """Its metrics and results would be taken for those of the later one."""
    for folder in (copy, tmp_path / "new"):
        folder.mkdir(exist_ok=True)
        (folder / "mine.txt").write_text("kept")
        (folder / "results.json").write_text("{}")
    model = glow_jax.load(copy)
    scale_bias(model, 2)  # so that it has no run, and no metrics
    model.save_pretrained(copy)
    ours = {CONFIG, WEIGHTS, "README.md", "card.png"}
    assert set(files_in(copy)) == {*ours, "mine.txt"}
    model.save_pretrained(tmp_path / "new")
    assert set(files_in(tmp_path / "new")) == {*ours, "mine.txt", "results.json"}


@pytest.mark.parametrize("is_new", [False, True])
def test_a_folder_whose_writing_was_interrupted_is_refused_and_can_be_written_again(
    copy: Path, is_new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = glow_jax.load(copy)
    scale_bias(model, 2)
    copy = copy / "new" if is_new else copy
    with monkeypatch.context() as full_disk:

        def write(path: Path, content: bytes) -> None:
            if path.name == WEIGHTS:
                raise OSError(28, "No space left on device")
            path.write_bytes(content)

        full_disk.setattr("glow_jax.publishing.contents.write_whole", write)
        with pytest.raises(OSError, match="No space left"):
            model.save_pretrained(copy)
    assert (
        f"{WEIGHTS} is missing" in refusal(copy)
        if is_new
        else ("its SHA-256 differs from what its model states" in refusal(copy))
    )
    model.save_pretrained(copy)
    assert_same(model, glow_jax.load(copy))


def test_no_folder_is_written_that_could_not_be_read(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = Path(shutil.copytree(run, tmp_path / "run"))
    name = "x" * 2**20
    (long / "metrics.jsonl").write_text(f'{{"epoch": 1, "step": 1, "{name}": 0.5}}\n' * 16)
    said = error_of(to_hub, monkeypatch, capsys, long, "--output", tmp_path / "out")
    assert "and a model folder's can have at most 16 MiB: shorten the run's metrics.jsonl" in said
    shutil.copy(run / "metrics.jsonl", long)
    results = json.loads((run / "results.json").read_text())
    (long / "results.json").write_text(json.dumps({**results, name[1000:]: 0.5}))
    said = error_of(to_hub, monkeypatch, capsys, long, "--output", tmp_path / "out")
    assert "at most 1 MiB: shorten the run's data.json and results.json" in said
    assert not (tmp_path / "out").exists()


def test_a_run_is_named_after_its_model(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(copy)
    run_script(from_hub, monkeypatch, ".")
    assert load_run_folder(copy / "runs" / "tiny").step == 40
    for source in ("me/tiny@refs/pr/1", "me/tiny", copy, "../tiny", copy / "runs" / ".."):
        assert model_name(source) == "tiny"
    (tmp_path / "tiny@home").mkdir()
    assert model_name(tmp_path / "tiny@home") == "tiny@home"


def test_a_run_folder_is_no_model_folder_to_make_a_run_of(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = error_of(from_hub, monkeypatch, capsys, run, "--output", tmp_path / "x")
    assert "is a run folder already" in said
    assert not (tmp_path / "x").exists()


# What the folder says


def test_the_configuration_has_no_paths_of_the_machine(published: Path, run: Path) -> None:
    text = (published / CONFIG).read_text()
    assert str(run) not in text
    assert str(Path.home()) not in text
    values = json.loads(text)
    assert values["weights"] == "averaged"
    assert values["step"] == load_run_folder(run).step
    assert values["results"]["bits_per_dim"] == 3.5
    assert values["images"]["class_names"] == list(read_data(run).class_names)  # pyright: ignore[reportOptionalMemberAccess]


def stated_bits(folder: Path) -> object:
    """The bits/dim that a model folder made of a run, or of another folder, would state."""
    contents = contents_of_run(load_run(folder), name="x", license=None)
    results = json.loads(contents[CONFIG])["results"]
    assert (results is None) == (b"| not measured |" in contents["README.md"])
    return None if results is None else results["bits_per_dim"]


def test_results_of_other_weights_are_not_stated(run: Path, copy: Path, tmp_path: Path) -> None:
    """Another model may have come into a folder since: steps say nothing, digests do."""
    ours = weights_digest(glow_jax.load(copy))
    assert ours == weights_digest(load_run(run).average_or_model)
    results = {**(read_results(run) or {}), "bits_per_dim": 1.25}
    write_results(copy, results)  # as before results had a digest
    assert stated_bits(copy) == 3.5
    write_results(copy, {**results, "weights_sha256": "of others"})
    assert stated_bits(copy) == 3.5
    write_results(copy, {**results, "weights_sha256": ours})
    assert stated_bits(copy) == 1.25
    again = Path(shutil.copytree(run, tmp_path / "run"))
    write_results(again, {**results, "weights_sha256": ours})
    assert stated_bits(again) == 1.25
    write_results(again, {**results, "weights_sha256": "of others"})
    assert stated_bits(again) is None


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("folder:/home/alice/a:b", "folder:a:b"),
        ("folder:../../../home/alice/secret", "folder:secret"),
        ("folder:x/../../home/alice/secret", "folder:secret"),
        ("folder:~alice/pictures", "folder:pictures"),
        ("/home/alice/a:b.npz", "a:b.npz"),
        ("../alice/images.zip", "images.zip"),
        ("data/digits.npz", "data/digits.npz"),
        ("folder:pictures/cats", "folder:pictures/cats"),
        ("lsun/bedroom", "lsun/bedroom"),
    ],
)
def test_paths_are_published_without_what_names_the_user(dataset: str, expected: str) -> None:
    config = Config(
        data=DataConfig(dataset=dataset, dataroot="/home/alice"),
        training=TrainingConfig(saved_model="../alice/m", saved_optimizer="/home/alice/o"),
    )
    told = without_paths(config)
    assert told.data.dataset == expected
    assert (told.training.saved_model, told.training.saved_optimizer) == ("m", "o")
    assert "alice" not in json.dumps(to_json(told))


def test_no_file_names_the_user(run: Path, tmp_path: Path) -> None:
    loaded, pictures = load_run_folder(run), "folder:../../home/alice/pictures"
    data = dataclasses.replace(loaded.config.data, dataset=pictures)
    config, ours = dataclasses.replace(loaded.config, data=data), tmp_path / "run"
    save_weights(ours, config, loaded.model, average=loaded.average, step=loaded.step)
    shutil.copy(run / "data.json", ours)
    write_results(ours, {**(read_results(run) or {}), "dataset": pictures})
    name = "../../home/alice/tiny"
    for file, content in contents_of_run(load_run(ours), name=name, license=None).items():
        assert b"alice" not in content, file
        assert (b"folder:pictures" in content) == (file in (CONFIG, "README.md")), file


@pytest.mark.parametrize("folder", [".", "../here", "below/.."])
def test_a_card_names_the_folder_that_it_is_in(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    small_models.build("affine_lu").save_pretrained(folder)
    card = (tmp_path / "here" / "README.md").read_text()
    assert "\n# here\n" in card
    assert 'from_pretrained("here")' in card


def test_the_card_says_what_the_run_knows(published: Path) -> None:
    import yaml

    text = (published / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    data = yaml.safe_load(front)
    assert data["license"] == "cc0-1.0"
    assert "\n## Licence\n\n`cc0-1.0`\n" in body
    assert data["library_name"] == "glow-jax"
    assert data["datasets"] == ["digits"]
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 3.5
    assert "3.5000 +- 0.0123 (standard error), on 360 test images of digits" in body
    assert "an exponential moving average" in body
    assert re.search(r"^glow-jax eval \S+ --dataroot data$", body, re.MULTILINE)
    assert re.search(r"^It took \d+\.\d minutes, with all evaluations\.$", body, re.MULTILINE)
    assert "![Samples at temperature 0.7](card.png)" in body
    assert (published / "card.png").read_bytes().startswith(b"\x89PNG")


def card_of(
    dataset: str,
    measured: Measured | None,
    *,
    model: ModelConfig | None = None,
    labels: Sequence[str] = (),
    data: RunData | None = None,
) -> str:
    """The card of a run on a data set."""
    model = model or ModelConfig(**{**small_models.SMALL, **CONFIGS["affine_lu"]})
    config = Config(model=model, data=DataConfig(dataset=dataset))
    return Card(
        **{"name": "me/tiny", "license": "mit", "parameters": 1, "weights": "trained"},
        **{"picture": "card.png", "temperature": 0.7, "rows": 8},
        model=model,
        labels=labels,
        training=Training(config, step=1, data=data, hours=None),
        measured=measured,
    ).text()


@pytest.mark.parametrize(
    ("dataset", "named", "kind"),
    [
        ("lsun/bedroom", ["lsun/bedroom"], "lsun/bedroom"),
        ("folder:my pictures", None, "folder-my-pictures"),
        ("mine.npz", None, "mine-npz"),
        ("\N{CAT FACE}::é", None, "images"),
    ],
)
def test_a_card_names_data_sets_by_identifiers(
    dataset: str, named: list[str] | None, kind: str
) -> None:
    import yaml

    card = card_of(dataset, Measured(dataset, "test", 10, 1, False, 3.5, 0.1))
    data = yaml.safe_load(card.split("---\n")[1])
    assert data.get("datasets") == named
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"] == {"name": dataset, "type": kind, "split": "test"}


def test_a_card_tells_a_file_from_the_data_set_of_its_name() -> None:
    """MNIST's images are in `data/digits.npz`, and `digits` is another data set."""
    data = RunData(9000, 1000, (28, 28, 1), 10, (), "")
    card = card_of(
        "data/digits.npz", Measured("digits", "test", 1000, 1, False, 3.5, 0.1), data=data
    )
    assert "\nA Glow of digits.npz: " in card
    assert "| data | digits.npz, 9,000 training and 1,000 test images |" in card
    assert "on 1,000 test images of digits.npz, with uniform dequantisation |" in card
    assert '"dataset": {"name": "digits.npz", "type": "digits-npz", "split": "test"}' in card
    assert " --dataset data/digits.npz " in card  # where the command finds it
    other = Measured("digits", "test", 360, 1, False, 3.5, 0.1)
    assert '{"name": "digits", ' in card_of("data/digits.npz", other, data=data)


def test_a_card_says_how_figures_were_computed_where_it_is_not_usual() -> None:
    usual = dataclasses.replace(
        Measured("x", "test", 10, 1, False, 3.5, 0.1),
        classifier_accuracy=0.5,
        classifier_accuracy_standard_error=0.1,
    )
    card = card_of("x", usual)
    assert "with uniform dequantisation |" in card
    assert '"name": "bits/dim", ' in card
    unusual = dataclasses.replace(usual, dtype="bfloat16", precision="default", dequantizations=3)
    card, how = card_of("x", unusual), "in bfloat16, at precision default"
    assert f"dequantisation, {how}, averaged over 3 draws of noise |" in card
    assert f"| accuracy | 0.5000 +- 0.1000 by the classifier, {how} |" in card
    assert f'"name": "bits/dim ({how}, averaged over 3 draws of noise)"' in card
    assert f'"name": "accuracy by the classifier ({how})"' in card
    results = {**dataclasses.asdict(unusual), "label_auroc": []}
    assert measured_of(results) == unusual


def test_a_card_says_how_to_get_the_program(published: Path) -> None:
    card = (published / "README.md").read_text()
    assert "This takes the program glow-jax, installed:" in card


def test_a_card_calls_labels_of_which_an_image_has_several_labels() -> None:
    shape = ModelConfig(image_shape=(8, 8, 1), y_condition=True, multi_class=True, y_classes=3)
    found = Measured("x", "test", 10, 1, False, 3.5, 0.1, label_auroc=(0.5, 0.75, None))
    card = card_of("x", found, model=shape, labels=["0 + 2", "1"])
    assert "; 3 labels |" in card
    assert "; a row for each set of labels, from the top, by number: 0 + 2, 1." in card
    assert "| AUROC of labels by number | 0: 0.500, 1: 0.750, 2: - |" in card
    data = RunData(10, 10, (8, 8, 1), 3, ("a", "b", "c"), "")
    card = card_of("x", found, model=shape, labels=["a + c", "b"], data=data)
    assert "; a row for each set of labels, from the top: a + c, b." in card
    assert "| labels | a, b, c |" in card
    assert "| AUROC of labels | a: 0.500, b: 0.750, c: - |" in card
    one = dataclasses.replace(shape, multi_class=False)
    card = card_of("x", None, model=one, labels=["0", "1", "2"])
    assert "; 3 classes |" in card
    assert "; a row for each class, from the top, by number: 0, 1, 2." in card


def test_the_command_of_a_card_gives_the_same_configuration(published: Path, run: Path) -> None:
    text = (published / "README.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("glow-jax train")]
    again = parse_training(shlex.split(line)[2:])
    ours = read_run_config(run)
    assert "--no_download" not in line  # another machine may not have the images
    assert dataclasses.replace(again.data, download=ours.data.download) == ours.data
    assert again.optimizer == ours.optimizer
    assert again.training == ours.training
    shape = {"image_shape": ours.model.image_shape, "y_classes": ours.model.y_classes}
    assert dataclasses.replace(again.model, **shape) == ours.model


def test_flags_are_those_that_differ() -> None:
    config = Config(
        preset="fashion_mnist-small",
        model=ModelConfig(K=3, L=2, hidden_channels=64, learn_top=False, image_shape=(28, 28, 1)),
        data=DataConfig(
            dataset="fashion_mnist", augment=False, validation=0.05, dataroot="/home/x"
        ),
        optimizer=OptimizerConfig(
            **{"optimizer": "adam", "lr": 1e-4, "schedule": "cosine", "warmup": 2.0},
            ema_decay=0.999,
            max_grad_norm=50,
        ),
        training=TrainingConfig(
            batch_size=8, epochs=18, eval_batch_size=500, memory="fast", saved_model="/home/y"
        ),
    )
    assert shlex.join(training_flags(config)) == (
        "--preset fashion_mnist-small --K 3 --no_learn_top --lr 0.0001 --warmup 2"
    )


@pytest.mark.slow
def test_a_converted_checkpoint_claims_no_data(tmp_path: Path) -> None:
    model = small_models.build("affine_lu")
    save_weights(tmp_path / "run", Config(model=model.config), model)
    glow_jax.load(tmp_path / "run").save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "cifar10" not in card  # the default of --dataset
    assert "Not known here" in card
    assert " --dataset DATA --dataroot data\n" in card


# The methods of a model


def test_a_model_is_saved_with_its_run_while_it_is_that_of_the_run(
    run: Path, tmp_path: Path
) -> None:
    model = glow_jax.load(run)
    model.save_pretrained(tmp_path / "one", license="cc-by-4.0")
    assert "3.5000 +- 0.0123" in (tmp_path / "one" / "README.md").read_text()
    assert "`cc-by-4.0`" in (tmp_path / "one" / "README.md").read_text()
    scale_bias(model, 2)
    model.save_pretrained(tmp_path / "two")
    values = json.loads((tmp_path / "two" / CONFIG).read_text())
    assert (values["weights"], values["results"]) == ("unsaid", None)
    assert "3.5000" not in (tmp_path / "two" / "README.md").read_text()
    assert_same(model, Glow.from_pretrained(tmp_path / "two"))


def test_a_model_keeps_the_licence_of_its_folder_unless_another_is_given(
    published: Path, copy: Path, tmp_path: Path
) -> None:
    def licence(model: Glow, **given: str) -> str:
        model.save_pretrained(tmp_path / "out", **given)  # pyright: ignore[reportArgumentType]
        return json.loads((tmp_path / "out" / CONFIG).read_text())["license"]

    model = glow_jax.load(published)
    assert licence(model) == "cc0-1.0"
    scale_bias(model, 2)
    assert licence(model) == "cc0-1.0"
    assert licence(model, license="other") == "other"
    change_config(copy, lambda v: v.pop("license"))  # as in older folders
    assert licence(glow_jax.load(copy)) == "unknown"


@pytest.mark.parametrize("content", ["{}", "[]", '{"license": 5}', '{"license": "MIT License"}'])
def test_a_run_s_damaged_licence_is_one_sentence(content: str, run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    (damaged / "license.json").write_text(content)
    with pytest.raises(GlowError, match="license"):
        glow_jax.load(damaged).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_earlier_model_s_is_not_replaced(run: Path, tmp_path: Path) -> None:
    model = small_models.build("affine_lu")
    (tmp_path / "README.md").write_text("of a project")
    with pytest.raises(GlowError, match=r"is no model folder of glow-jax, and its README\.md wou"):
        model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "of a project"
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(GlowError, match=r"its metrics\.jsonl would be replaced"):
        model.save_pretrained(run)
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_folder_is_read_where_float64_is_the_default(published: Path, x64: None) -> None:
    model = Glow.from_pretrained(published)
    with jax.enable_x64(False):
        expected = arrays_of(Glow.from_pretrained(published))
    for name, array in arrays_of(model).items():
        assert array.dtype == (np.float64 if expected[name].dtype.kind == "f" else np.int32)
        np.testing.assert_array_equal(array, expected[name])


def test_float64_is_refused(tmp_path: Path, x64: None) -> None:
    model = small_models.build("affine_lu")
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(float), nnx.state(model, nnx.Param)))
    with pytest.raises(GlowError, match="is float64; a model folder holds float32"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / CONFIG).exists()


def test_a_model_with_nan_is_refused(tmp_path: Path) -> None:
    model = small_models.build("affine_lu")
    scale_bias(model, np.nan)
    with pytest.raises(GlowError, match=r"levels\.0\.steps\.actnorm\.bias has infinities or NaN"):
        model.save_pretrained(tmp_path / "out")


def test_an_unknown_keyword_is_refused(tmp_path: Path) -> None:
    model, slip = small_models.build("affine_lu"), {"pivate": True}
    for call in (
        lambda: model.save_pretrained(tmp_path / "out", **slip),  # pyright: ignore[reportArgumentType]
        lambda: model.push_to_hub("me/new", **slip),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'pivate'") as error:
            call()
        assert not isinstance(error.value, GlowError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("license", ["", "MIT License", "mit\nlibrary_name: x", "x" * 100])
def test_a_licence_is_an_identifier(license: str, tmp_path: Path) -> None:
    with pytest.raises(GlowError, match="give an identifier of the hub's"):
        small_models.build("affine_lu").save_pretrained(tmp_path / "out", license=license)


# Where a run is taken, a model folder is


@pytest.mark.slow
def test_training_starts_from_a_model_folder(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--preset", "digits", "--epochs", "1", "--saved_model", published, "--seed", "1"]
    train(monkeypatch, *words, "--output_dir", tmp_path / "new")
    new = load_run_folder(tmp_path / "new")
    assert new.config.model == read_config(published).model
    assert new.step == 20


def test_a_model_folder_has_no_optimizer_s_state(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--preset", "digits", "--saved_model", published, "--saved_optimizer", published]
    said = error_of(train_script.main, monkeypatch, capsys, *words, "--output_dir", tmp_path / "x")
    assert "a model folder, which keeps no optimizer's state" in said
    assert not (tmp_path / "x").exists()


def test_sampling_takes_a_model_folder(
    published: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script(sample, monkeypatch, copy, "--num", "2")
    assert (copy / "samples.png").is_file()
    assert "averaged parameters" in capsys.readouterr().out
    said = error_of(sample, monkeypatch, capsys, copy, "--step", "3")
    assert "has one step, 40: leave --step out" in said
    said = error_of(sample, monkeypatch, capsys, copy, "--no_average")
    assert "holds averaged parameters only" in said


@pytest.mark.slow
def test_evaluation_takes_a_model_folder(copy: Path) -> None:
    ours = glow_jax.evaluate(copy)
    assert ours.likelihood.mean > 0
    assert ours.run.title == "step 40, averaged parameters"


@pytest.mark.slow
def test_a_file_for_pytorch_is_made_of_a_model_folder(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from glow_jax.bridge.to_torch import export_run

    words = ["--preset", "digits", "--n_bits", "8", "--K", "1", "--L", "1", "--hidden_channels"]
    config = parse_training([*words, "4"])
    shape = {"image_shape": (8, 8, 1), "y_classes": 10}
    model = small_models.build("affine_lu", **shape, K=1, L=1)
    config = dataclasses.replace(config, model=model.config)
    save_weights(tmp_path / "run", config, model)
    run_script(to_hub, monkeypatch, tmp_path / "run", "--output", tmp_path / "folder")
    files = [
        export_run(load_run(tmp_path / name), tmp_path / "glow.pt").contents[tmp_path / "glow.pt"]
        for name in ("run", "folder")
    ]
    assert files[0] == files[1]
    assert torch is not None


# Damaged and hostile folders


def refusal(folder: Path) -> str:
    with pytest.raises(GlowError) as error:
        load_run(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def change_config(folder: Path, change: Change) -> None:
    values = json.loads((folder / CONFIG).read_text())
    change(values)
    (folder / CONFIG).write_text(json.dumps(values))


def write_weights(folder: Path, content: bytes) -> None:
    """Weights with the digest that fits, as a stranger would."""
    (folder / WEIGHTS).write_bytes(content)
    change_config(folder, lambda v: v.update(sha256=hashlib.sha256(content).hexdigest()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("hparams"), "it has no hparams. It may belong to a model of another"),
        (lambda v: v.update(format=2), "has format 2; this glow_jax reads format 1"),
        (lambda v: v.update(format=True), "has format True"),
        (lambda v: v.update(weights="best"), "config.weights is 'best'"),
        (lambda v: v.pop("sha256"), "config.sha256 is None"),
        (lambda v: v.update(step=2**70), "config.step is .*, which is too large"),
        (lambda v: v.update(step=-1), "step is -1"),
        (lambda v: v.update(license="MIT License"), "license is MIT License; give an identifier"),
        (lambda v: v.update(license=["mit"]), r"config.license is \['mit'\]"),
        (lambda v: v.update(images={"classes": 3}), "config.images has no field"),
        (lambda v: v.update(results=[1]), r"results is \[1\]"),
        (lambda v: v["hparams"].update(version=99), "has version 99"),
        (lambda v: v["hparams"]["model"].update(K=10**9), "K is 1000000000; it must be at most"),
        (lambda v: v["hparams"]["model"].update(image_shape=[0, 0, 0]), "has no image_shape"),
        (lambda v: v["hparams"]["model"].update(code="import os"), "a field 'code'"),
        (lambda v: v["hparams"]["model"].update(K=2), "bytes of numbers|does not match"),
    ],
)
def test_a_configuration_is_checked(change: Change, message: str, copy: Path) -> None:
    import re

    change_config(copy, change)
    assert re.search(message, refusal(copy))


def test_a_model_larger_than_its_file_takes_no_memory(copy: Path) -> None:
    """4,096 steps of 65,536 channels would have 70 TB of parameters."""
    change_config(copy, lambda v: v["hparams"]["model"].update(K=4096, hidden_channels=65536))
    assert "bytes of numbers: it belongs to another model" in refusal(copy)


@pytest.mark.parametrize("text", ["", "[]", "5", "{", "[" * 100_000, '{"format": 1}', "\ud800"])
def test_a_configuration_of_nonsense_is_one_sentence(text: str, copy: Path) -> None:
    (copy / CONFIG).write_bytes(text.encode(errors="surrogatepass"))
    assert CONFIG in refusal(copy)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "missing"])
def test_what_is_no_file_is_refused(name: str, kind: str, copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (copy / name).rename(outside)
    match kind:
        case "link":
            (copy / name).symlink_to(outside)
        case "dangling":
            (copy / name).symlink_to(tmp_path / "nowhere")
        case "pipe":
            os.mkfifo(copy / name)
        case "folder":
            (copy / name).mkdir()
    assert name in refusal(copy)


def test_only_links_of_the_hub_s_own_cache_are_followed(published: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "c", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in (CONFIG, WEIGHTS):
        shutil.copy(published / name, blobs / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert_same(glow_jax.load(snapshot), glow_jax.load(published))
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(published / WEIGHTS)
    assert "is a symbolic link" in refusal(snapshot)


def test_a_flipped_bit_is_seen(copy: Path) -> None:
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / WEIGHTS).write_bytes(content)
    assert "is damaged: its SHA-256 differs" in refusal(copy)


def with_header(content: bytes, change: Change) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


BIAS = "top_prior.learned.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h[BIAS].update(shape=[2**62, 4]), "damaged safetensors"),
        (lambda h: h[BIAS].update(data_offsets=[0, 2**40]), "damaged safetensors"),
        (lambda h: h[BIAS].update(data_offsets=[-4, 4]), "damaged safetensors"),
        (lambda h: h[BIAS].update(dtype="I32"), "is int32 of shape .* there and float32"),
        (lambda h: h[BIAS].update(shape=[2, 4]), r"of shape \(2, 4\) there"),
        (lambda h: h.update(other=h.pop(BIAS)), "other is float32 of shape .* there and absent"),
        (lambda h: h.clear(), "damaged safetensors|is absent there"),
        (lambda h: h.update(a=5), "damaged safetensors"),
    ],
)
def test_a_lying_header_is_refused(change: Change, message: str, copy: Path) -> None:
    import re

    write_weights(copy, with_header((copy / WEIGHTS).read_bytes(), change))
    assert re.search(message, refusal(copy))


@pytest.mark.parametrize("length", [0, 2**40, 2**64 - 1])
def test_a_lying_length_of_the_header_is_refused(length: int, copy: Path) -> None:
    content = (copy / WEIGHTS).read_bytes()
    write_weights(copy, length.to_bytes(8, "little") + content[8:])
    assert "damaged safetensors" in refusal(copy)


def test_numbers_that_are_not_finite_are_refused(copy: Path) -> None:
    content = (copy / WEIGHTS).read_bytes()
    write_weights(copy, content[:-4] + np.float32(np.nan).tobytes())
    assert "numbers that are not finite" in refusal(copy)


def test_more_metrics_than_a_hub_s_may_have_are_refused_here_too(copy: Path) -> None:
    with (copy / "metrics.jsonl").open("r+b") as file:
        file.truncate(2**24 + 1)
    assert "metrics.jsonl is larger than 16 MiB" in refusal(copy)


@pytest.mark.parametrize("text", ["no JSON", "no JSON\n", '{"epoch": 1}\n', '{"epoch": 1, "st'])
def test_metrics_of_nonsense_are_one_sentence(text: str, copy: Path) -> None:
    with (copy / "metrics.jsonl").open("a") as file:
        file.write(text)
    said = r"metrics\.jsonl is damaged in line 3: fetch the model again, or remove the file\.$"
    assert re.search(said, refusal(copy))


def test_what_is_no_folder_is_said_to_be_none(copy: Path, tmp_path: Path) -> None:
    said = refusal(tmp_path / "nobody")
    assert "nobody is no run folder: it does not exist; give a run folder, a model folder, " in said
    assert "or user/name of the Hugging Face Hub" in said
    said = refusal(copy / CONFIG)
    assert f"is a file of the model folder {copy}, and no run folder: give the folder" in said
    (tmp_path / "glow.pt").write_text("")
    assert "glow.pt is a file, and no run folder: give the folder" in refusal(tmp_path / "glow.pt")
    with pytest.raises(GlowError, match="it does not exist"):
        read_config(tmp_path / "nobody")


def test_a_file_larger_than_its_model_is_not_read(copy: Path) -> None:
    with (copy / WEIGHTS).open("r+b") as file:
        file.truncate(2**33)  # with nothing in it
    assert "it belongs to another model, or is damaged" in refusal(copy)


def test_a_model_larger_than_the_free_memory_is_not_read(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may be one with holes, which takes no room on the disk: read, it takes all."""
    assert 0 < _free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # The file's content, and the arrays that are copied out of it.
    needed = 2 * sum(array.nbytes for array in arrays_of(glow_jax.load(copy)).values())
    monkeypatch.setattr("glow_jax.hub.weights._free_memory", lambda: needed)
    load_run(copy)
    monkeypatch.setattr("glow_jax.hub.weights._free_memory", lambda: needed - 1)
    assert f"would take {needed / 1e9:.3g} GB of memory, and" in refusal(copy)


def test_a_header_larger_than_any_model_s_is_not_parsed(copy: Path) -> None:
    """The library takes 100 MB, which become 3 GB once they are parsed."""
    text = b"{}".ljust(10_000_008)
    write_weights(copy, len(text).to_bytes(8, "little") + text)
    assert f"claims a header of {len(text)} bytes" in refusal(copy)


def test_a_pickle_beside_the_files_is_left_alone(copy: Path, tmp_path: Path) -> None:
    import pickle

    class Canary:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # pyright: ignore[reportReturnType]

    for name in ("pytorch_model.bin", "model.pkl"):
        (copy / name).write_bytes(pickle.dumps(Canary()))
    (copy / "modeling.py").write_text("raise SystemExit")
    load_run(copy)
    assert not (tmp_path / "ran").exists()


# The hub


@pytest.fixture
def hub(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the published model; huggingface_hub is imported anew, and asks it."""
    with serving() as hub:
        hub.models[NAME] = {path.name: path.read_bytes() for path in published.iterdir()}
        hub.models[NAME]["pytorch_model.bin"] = b"never fetched"
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        _forget_hub()
        yield hub
        _forget_hub()


def _forget_hub() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "huggingface_hub" or name.endswith(".hub_model"):
            del sys.modules[name]


def fetched(hub: Hub) -> set[str]:
    """The files that were fetched since the last time."""
    lines = [line for line in hub.asked if line.startswith("GET ") and "/resolve/" in line]
    names = {line.rpartition("/")[2] for line in lines}
    hub.asked.clear()
    return names


def test_a_name_is_fetched_once_and_nothing_else_of_it(hub: Hub, published: Path) -> None:
    assert_same(Glow.from_pretrained(NAME), glow_jax.load(published))
    assert fetched(hub) == {CONFIG, WEIGHTS, "metrics.jsonl"}
    assert_same(glow_jax.load(f"{NAME}@v1"), glow_jax.load(published))
    assert fetched(hub) == set()
    Glow.from_pretrained(NAME, force_download=True)
    assert WEIGHTS in fetched(hub)


def test_the_newest_state_is_fetched(hub: Hub, run: Path, tmp_path: Path) -> None:
    old = glow_jax.load(NAME)
    glow_jax.load(run, average=False).save_pretrained(tmp_path / "new")
    hub.models[NAME] |= {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    new = glow_jax.load(NAME)
    assert_same(new, load_run_folder(run).model)
    assert arrays_of(old)[BIAS].tobytes() != arrays_of(new)[BIAS].tobytes()


def test_what_is_not_there_is_one_sentence(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = error_of(sample, monkeypatch, capsys, "somebody/else")
    assert "There is no folder somebody/else here" in said
    assert f"no model of that name on {hub.address}" in said
    with pytest.raises(GlowError, match="has no revision v9"):
        glow_jax.load(f"{NAME}@v9")
    with pytest.raises(GlowError, match="has no revision v9"):
        Glow.from_pretrained(NAME, revision="v9")
    with pytest.raises(GlowError, match="names a revision, and revision is v1"):
        Glow.from_pretrained(f"{NAME}@v1", revision="v1")
    del hub.models[NAME][CONFIG]
    with pytest.raises(GlowError, match="is no model of glow_jax: it has no config"):
        glow_jax.load(NAME)


def test_a_path_with_a_slip_is_not_looked_for_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(GlowError, match=r"is no run folder.* because runs is a folder here"):
        glow_jax.load("runs/digitz")
    for other in ("a/b\0", "./a/b", "a/b/c", "/a/b", "a", "a/b@", "../x", "~a/b", "a/b c"):
        with pytest.raises(GlowError, match="is no run folder"):
            glow_jax.load(other)
    assert hub.asked == []


def test_a_folder_is_preferred_to_a_name(hub: Hub, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / NAME)
    glow_jax.load(NAME)
    assert hub.asked == []


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, "metrics.jsonl"])
def test_what_claims_to_be_too_large_is_not_fetched(file: str, hub: Hub) -> None:
    hub.sizes[file] = size = 2**24 + 1 if file == "metrics.jsonl" else 2**45
    with pytest.raises(GlowError, match=f"{file} of {NAME} has {size} bytes, and can have"):
        glow_jax.load(NAME)
    assert file not in fetched(hub)


def test_what_would_not_fit_into_memory_is_not_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glow_jax.hub.weights._free_memory", lambda: 1000)
    with pytest.raises(GlowError, match=f"{NAME} would take .* GB of memory, and 1e-06 GB are fre"):
        glow_jax.load(NAME)
    assert fetched(hub) == {CONFIG}


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_file_that_is_cut_short_is_one_sentence(file: str, hub: Hub) -> None:
    hub.cut.add(file)
    with pytest.raises(GlowError, match="cannot be fetched") as error:
        glow_jax.load(NAME)
    assert "\n" not in str(error.value)
    hub.cut.clear()
    glow_jax.load(NAME)


def test_a_damaged_file_of_the_hub_is_one_sentence(hub: Hub) -> None:
    content = bytearray(hub.models[NAME][WEIGHTS])
    content[-1] ^= 1
    hub.models[NAME][WEIGHTS] = bytes(content)
    with pytest.raises(GlowError, match="its SHA-256 differs"):
        glow_jax.load(NAME)


def test_results_of_a_name_are_kept_here_and_not_in_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_script(sample, monkeypatch, NAME, "--num", "1")
    assert (tmp_path / "runs" / "somebody--tiny" / "samples.png").is_file()
    run_script(from_hub, monkeypatch, NAME)
    assert_same(load_run_folder(tmp_path / "runs" / "tiny").model, glow_jax.load(NAME))
    assert read_metrics(tmp_path / "runs" / "tiny")


@pytest.mark.slow
def test_the_demo_opens_a_name_and_keeps_its_results_here(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desks: list[Desk] = []
    # Stands for the page, which needs gradio: what its controls would do is done below.
    page = types.ModuleType("glow_jax.demo.page")
    vars(page).update(
        build=desks.append, launch=lambda *_, **__: "http://127.0.0.1:1/", wait=lambda _: None
    )
    monkeypatch.setitem(sys.modules, "glow_jax.demo.page", page)
    monkeypatch.setattr(glow_jax.demo, "page", page, raising=False)
    gradio = types.ModuleType("gradio")
    gradio.__spec__ = ModuleSpec("gradio", None)
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    run_script(demo, monkeypatch, NAME)
    assert "open http://127.0.0.1:1/ in a browser" in capsys.readouterr().out
    assert fetched(hub) == {CONFIG, WEIGHTS, "metrics.jsonl"}
    (desk,) = desks
    cache = sorted((tmp_path / "hf").rglob("*"))

    assert "2 images drawn at temperature 0.7 with seed 5" in desk.draws(0.7, 5, 2, None)
    monkeypatch.setattr("glow_jax.demo.desk._DIRECTION_IMAGES", 20)
    assert "Kept in the run" in [*desk.direct(3, OTHERS)][-1]
    steps = desk.measure()
    next(steps)
    desk.halt()
    assert "Stopped." in [*steps][-1]
    kept = tmp_path / "runs" / "somebody--tiny"
    assert len([*(kept / "directions").iterdir()]) == 1
    assert (kept / "ood" / "measured" / "digits-training" / "likelihood.npz").is_file()
    assert sorted((tmp_path / "hf").rglob("*")) == cache
    # The next visit, and the command, find them.
    run_script(directions, monkeypatch, NAME, "--of", "3", "--against", "8", "--images", "20")
    run_script(demo, monkeypatch, NAME)
    assert set(desks[1].studio.directions) == {"3", "3 - 8"}
    assert "Histogram of bits per dimension of" in desks[1].test(0)[1]


def test_a_model_is_pushed_and_comes_back(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "good")
    run_script(to_hub, monkeypatch, run, "--push", "me/new", "--private")
    assert f"{hub.address}/me/new" in capsys.readouterr().out
    assert {CONFIG, WEIGHTS, "README.md", "card.png"} <= set(hub.models["me/new"])
    assert b'from_pretrained("me/new")' in hub.models["me/new"]["README.md"]
    model = glow_jax.load("me/new")
    assert_same(model, glow_jax.load(run))
    assert hub.address in model.push_to_hub("me/again", token="good")
    assert hub.models["me/again"][WEIGHTS] == hub.models["me/new"][WEIGHTS]
    assert b"3.5000" in hub.models["me/again"]["README.md"]


def test_nothing_of_an_earlier_model_stays_on_the_hub(hub: Hub, copy: Path) -> None:
    model = glow_jax.load(copy)
    scale_bias(model, 2)  # so that it has no run, and no metrics
    hub.models["me/other"] = {CONFIG: b"{}", "metrics.jsonl": b"of another program"}
    for name in (NAME, "me/other"):
        model.push_to_hub(name, token="good")
    assert set(hub.models[NAME]) == {
        *{CONFIG, WEIGHTS, "README.md", "card.png"},
        "pytorch_model.bin",
    }
    assert hub.models["me/other"]["metrics.jsonl"] == b"of another program"


def test_results_of_another_revision_are_not_stated(hub: Hub, run: Path, tmp_path: Path) -> None:
    """They are kept in one place for all revisions of a name."""
    digest = weights_digest(glow_jax.load(NAME))
    kept = tmp_path / "runs" / "somebody--tiny"
    results = {**(read_results(run) or {}), "bits_per_dim": 1.25, "weights_sha256": digest}
    write_results(kept, results)
    assert stated_bits(Path(NAME)) == 1.25
    glow_jax.load(run, average=False).save_pretrained(tmp_path / "new")
    hub.models[NAME] |= files_in(tmp_path / "new")
    write_results(kept, {**results, "averaged_parameters": False})
    assert stated_bits(Path(NAME)) is None


def test_a_name_without_a_user_is_the_user_s_own(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "good")
    run_script(to_hub, monkeypatch, run, "--push", "new")
    assert b'from_pretrained("me/new")' in hub.models["me/new"]["README.md"]
    glow_jax.load(run).save_pretrained("models/again", push_to_hub=True)
    assert b'from_pretrained("me/again")' in hub.models["me/again"]["README.md"]
    with pytest.raises(GlowError, match="other cannot be uploaded to"):
        glow_jax.load(run).push_to_hub("other", token="bad")


def test_a_push_that_is_refused_is_one_sentence(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = error_of(to_hub, monkeypatch, capsys, run, "--push", "me/new")
    assert f"me/new cannot be uploaded to {hub.address}" in said
    assert "uploading needs a token that may write" in said
    assert "me/new" not in hub.models


def test_the_token_is_blamed_only_where_it_is_at_fault(
    hub: Hub, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, push = files_in(published), "glow_jax.publishing.hub_model"
    with pytest.raises(GlowError, match=r"a/b/c cannot be uploaded to .*Repo id must") as error:
        importlib.import_module(push).push_contents(contents, "a/b/c", token="good")
    assert "token" not in str(error.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    _forget_hub()
    with pytest.raises(GlowError, match=r"me/new cannot be uploaded to .*refused") as error:
        importlib.import_module(push).push_contents(contents, "me/new", token="good")
    assert "token" not in str(error.value)


def script(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "sample.py"), *words, "--num", "1"],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_without_a_network_the_cache_serves_and_a_script_says_what_it_lacks(
    hub: Hub, tmp_path: Path
) -> None:
    """In processes of their own, as users have them: a download, then no hub at all."""
    first = script(tmp_path, NAME)
    assert first.returncode == 0, first.stderr
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody listens
    for environment in ({"HF_HUB_OFFLINE": "1"}, nowhere):
        again = script(tmp_path, NAME, **environment)
        assert again.returncode == 0, again.stderr
    missing = script(tmp_path, "somebody/other", **nowhere)
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert (
        "it is not in the cache, and the hub is switched off or cannot be reached" in missing.stderr
    )
