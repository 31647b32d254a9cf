"""The precision that a run trains at: its flag, what a resumed run keeps, and what is exact anyway.

How products and convolutions are computed in a program is tested in test_lowering.py.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import TINY, error_of, train, two_epochs

import glow_jax
import train as train_script
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import Config, ModelConfig, TrainingConfig
from glow_jax.data import InMemory
from glow_jax.errors import GlowError
from glow_jax.evaluation.likelihood import likelihood
from glow_jax.evaluation.samples import sample_pixels
from glow_jax.kernels.products import Precision
from glow_jax.layers.network import CouplingNetwork
from glow_jax.model import Glow, abstract_glow, computing
from glow_jax.runs.hparams import read_config
from glow_jax.training import trainer
from glow_jax.training.initial import start_of
from glow_jax.training.optimizer import make_optimizer
from glow_jax.training.step import TrainState, make_train_step

SMALL = ModelConfig(K=1, L=2, hidden_channels=2, image_shape=(4, 4, 1))
OLD_RUN = Path(__file__).parent / "data" / "run_version_1" / "run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_epochs(tmp_path_factory)


def network_of(model: Glow) -> CouplingNetwork:
    """The networks of the last level; `computing` sets all alike."""
    return model.levels[-1].steps.coupling.network


def precision_of_start(config: Config) -> Precision:
    """The precision at which a run that goes on, or starts from saved weights, trains."""
    images = InMemory(np.zeros((0, 8, 8, 1), np.uint8), np.zeros((0, 0), np.int32))
    optimizer = make_optimizer(config.optimizer, 20)
    start = start_of(config, optimizer, images, lambda *_: pytest.fail("nothing is new"), 20)
    return network_of(start.state.model).precision


def flags(*words: object) -> Config:
    return parse_training([str(word) for word in words])


def test_computing_sets_all_networks_and_leaves_the_model_as_it_is() -> None:
    model = abstract_glow(SMALL)
    high = computing(model, precision="high")
    assert [level.steps.coupling.network.precision for level in high.levels] == ["high", "high"]
    assert network_of(model).precision == "highest"
    assert network_of(computing(high, memory="fast")).precision == "high"
    assert network_of(computing(high, precision="default")).precision == "default"


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ([], "high"),
        (["--memory", "fast"], "high"),
        (["--memory", "reversible"], "highest"),
        (["--memory", "reversible", "--precision", "default"], "highest"),
        (["--precision", "default"], "default"),
        (["--precision", "highest", "--preset", "cifar10"], "highest"),
        (["--memory", "reversible", "--preset", "fashion_mnist-small"], "highest"),
    ],
)
def test_training_is_at_high_and_reversible_at_highest(words: list[str], precision: str) -> None:
    assert flags(*words).training.network_precision == precision


@pytest.mark.parametrize("precision", ["high", "default"])
def test_reversible_is_refused_at_less_than_highest(precision: Precision) -> None:
    model = computing(abstract_glow(SMALL), precision=precision)
    with pytest.raises(GlowError, match=f"precision {precision}.* use remat with {precision}, or"):
        computing(model, memory="reversible")
    assert network_of(computing(model, memory="reversible", precision="highest"))


@pytest.mark.slow
def test_a_run_trains_at_high_and_all_else_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[Precision]] = {"training": set(), "evaluating": set(), "sampling": set()}

    def watched(name: str, function: Any) -> Any:
        def call(model: Glow, *rest: Any, **options: Any) -> Any:
            seen[name].add(network_of(model).precision)
            return function(model, *rest, **options)

        return call

    def watched_step(*arguments: Any, **options: Any) -> Any:
        step = make_train_step(*arguments, **options)

        def call(state: TrainState, *batch: Any) -> Any:
            seen["training"].add(network_of(state.model).precision)
            return step(state, *batch)

        return call

    monkeypatch.setattr(trainer, "make_train_step", watched_step)
    monkeypatch.setattr(trainer, "likelihood", watched("evaluating", likelihood))
    monkeypatch.setattr(trainer, "sample_pixels", watched("sampling", sample_pixels))
    train(monkeypatch, *TINY, "--epochs", 1, "--output_dir", tmp_path / "run")
    assert seen == {"training": {"high"}, "evaluating": {"highest"}, "sampling": {"highest"}}
    saved = json.loads((tmp_path / "run" / "hparams.json").read_text())
    assert (saved["version"], saved["training"]["precision"]) == (6, "high")
    assert network_of(glow_jax.load(tmp_path / "run")).precision == "highest"


def test_a_resumed_run_keeps_its_precision(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resumed = ("--output_dir", trained, "--resume", "--epochs", 3)
    assert precision_of_start(flags(*resumed)) == "high"
    assert precision_of_start(flags(*resumed, "--memory", "reversible")) == "highest"
    arguments = (*resumed, "--precision", "default")
    message = error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert "precision = high, which cannot become default" in message


def test_a_new_run_from_saved_weights_has_a_precision_of_its_own() -> None:
    saved = ("--preset", "digits", "--saved_model", OLD_RUN)
    assert precision_of_start(flags(*saved)) == "high"
    assert precision_of_start(flags(*saved, "--precision", "default")) == "default"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_run_of_before_goes_on_at_the_highest(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = shutil.copytree(OLD_RUN, tmp_path / "run")
    values = json.loads((folder / "hparams.json").read_text())
    if version == 3:
        values["model"].pop("pad_ones", None)
    (folder / "hparams.json").write_text(json.dumps({**values, "version": version}))
    resumed = ("--output_dir", folder, "--resume", "--epochs", 2)
    assert precision_of_start(flags(*resumed)) == "highest"
    arguments = (*resumed, "--precision", "high")
    message = error_of(train_script.main, monkeypatch, capsys, *arguments)
    assert "precision = highest, which cannot become high" in message


@pytest.mark.parametrize("sections", [{}, {"training": {}}, {"training": {"batch_size": 3}}])
def test_absent_precision_is_the_highest_before_version_4_alone(
    sections: dict[str, dict[str, int]], tmp_path: Path
) -> None:
    batch_size = sections.get("training", {}).get("batch_size", 64)
    exact, now = (TrainingConfig(batch_size, precision=name) for name in ("highest", "high"))
    for version, expected in ((3, exact), (4, now)):
        (tmp_path / "hparams.json").write_text(json.dumps({"version": version, **sections}))
        assert read_config(tmp_path).training == expected
