"""`eval.py --ood` from end to end."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image as matplotlib_image
from ood_runs import GREY, save_run, untrained
from PIL import Image
from training_runs import error_of, run_script

from glow_jax.cli import evaluate
from glow_jax.config import ModelConfig
from glow_jax.ood.metrics import detection
from glow_jax.ood.plots import save_histogram
from glow_jax.ood.records import records_of
from glow_jax.ood.report import as_markdown, as_text
from glow_jax.ood.scores import score_table

# Of training images, only PNG is measured.
OTHER_FORMATS = {f"{prefix}{name}" for prefix in ("", "complexity_") for name in ("webp", "jxl")}


@dataclass(frozen=True)
class Compared:
    """A run that has been compared with another data set, by all scores.

    Attributes:
        run: its folder.
        noise: the other data set, 130 images.
        background: the second model's run folder.
        printed: what the command printed.
    """

    run: Path
    noise: Path
    background: Path
    printed: str


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, randomise) -> Compared:
    place = tmp_path_factory.mktemp("ood")
    run = save_run(place / "run", untrained(), validation=0.1)
    other = randomise(untrained(), seed=2, scale=0.1)
    background = save_run(place / "background", other, validation=0.1)
    images = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 1), dtype=np.uint8)
    np.savez(place / "noise.npz", images=images)
    printed = io.StringIO()
    options = ["--ood", place / "noise.npz", "--background", background]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        run_script(evaluate.main, patch, run, *options)
    return Compared(run, place / "noise.npz", background, printed.getvalue())


@pytest.fixture
def run(compared: Compared, tmp_path: Path) -> Path:
    """A copy of the run that has been compared."""
    return shutil.copytree(compared.run, tmp_path / "run")


@pytest.fixture
def noise(compared: Compared) -> Path:
    return compared.noise


def results_of(run: Path, name: str = "noise") -> dict:
    return json.loads((run / "ood" / f"{name}.json").read_text())


def unfitted(results: dict, names: Iterable[str]) -> dict:
    """The figures of some scores where nothing is measured of training images."""
    return {name: {**results["scores"][name], "threshold": None} for name in names}


def kept_bits(run: Path) -> list[np.ndarray]:
    """The bits/dim of both sets that the command kept."""
    places = ("digits-test", "noise-test")
    files = [run / "ood" / "measured" / place / "likelihood.npz" for place in places]
    return [np.load(file)["bits_per_dim"] for file in files]


def test_the_command_leaves_everything(compared: Compared) -> None:
    run, results = compared.run, results_of(compared.run)
    assert results["in_distribution"]["images"] == 360
    assert results["out_of_distribution"]["images"] == 130
    assert results["training"]["images"] == 1293
    assert results["background"] == str(compared.background)
    assert (results["dtype"], results["precision"]) == ("float32", "highest")
    assert results["typicality_test"]["thresholds_from"]["images"] == 144
    assert "on_record" not in results
    names = list(results["scores"])
    assert names[:2] == ["likelihood", "typicality"]
    assert {"likelihood_ratio", "level_1", "level_2", "gradient_norm", "complexity_png"} < set(
        names
    )
    markdown = (run / "ood" / "noise.md").read_text()
    for name, figures in results["scores"].items():
        cell = f"{figures['auroc']['value']:.4f} [{figures['auroc']['low']:.4f}, "
        assert cell in compared.printed
        assert f"| {figures['title']} | {cell}" in markdown
        assert figures["paper"] in markdown
        assert figures["not_finite"] == 0
        # The ratio is not measured of training images, which a threshold takes.
        assert (figures["threshold"] is None) == (name in {"likelihood_ratio", *OTHER_FORMATS})
        picture = matplotlib_image.imread(run / "ood" / "noise" / f"{name}.png")
        assert picture[..., :3].std() > 0.05
    # The figures are those of the numbers that were kept.
    kept = kept_bits(run)
    expected = detection(-kept[0], -kept[1])
    assert results["scores"]["likelihood"]["auroc"]["value"] == expected.auroc.value
    assert results["scores"]["likelihood"]["fpr95"]["high"] == expected.fpr95.high
    assert results["in_distribution"]["bits_per_dim"] == pytest.approx(kept[0].mean())


def test_without_other_data_sets_it_measures_the_same(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_script(evaluate.main, monkeypatch, run)
    alone = json.loads((run / "results.json").read_text())
    assert alone["bits_per_dim"] == pytest.approx(kept_bits(run)[0].mean(), abs=1e-6)


def test_all_pictures_of_a_folder_are_taken_as_the_model_takes_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number:02d}.png")
    folder = f"folder:{tmp_path / 'pictures'}"
    options = ["--scores", "likelihood", "--dataroot", tmp_path]
    run_script(evaluate.main, monkeypatch, run, "--ood", folder, *options)
    (path,) = (run / "ood").glob("folder*.json")
    np.savez(tmp_path / "same.npz", images=pixels)
    run_script(evaluate.main, monkeypatch, run, "--ood", tmp_path / "same.npz", *options)
    results = [json.loads(path.read_text()), results_of(run, "same")]
    assert [one["out_of_distribution"]["images"] for one in results] == [20, 20]
    assert results[0]["scores"] == results[1]["scores"]


def test_the_first_picture_has_the_form_of_the_published_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    keep = lambda self, *_, **__: drawn.append(self)  # noqa: E731
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)
    random = np.random.default_rng(0)
    inside, outside = random.normal(-3, 0.2, 5000), random.normal(-9, 0.1, 5)
    label = next(iter(score_table(GREY).values())).unit
    save_histogram(tmp_path / "a.png", inside, outside, names=("in", "out"), label=label)
    (axes,) = drawn[0].axes
    assert "negative bits/dim" in axes.get_xlabel()
    assert axes.get_ylabel() == "density"
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["in", "out"]
    for bars in axes.containers:  # a set of five far away is not lost
        area = sum(bar.get_height() * bar.get_width() for bar in bars)
        assert area > 0.39  # of five scores, the quantiles leave out two


def test_another_data_set_is_not_taken_for_the_training_images(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--ood", "noise.npz", "--dataset", "mnist")
    assert "give it as --ood" in error_of(evaluate.main, monkeypatch, capsys, run, *arguments)


def test_a_second_command_measures_only_what_is_missing(
    run: Path, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = results_of(run)
    folder = run / "ood" / "measured"
    for place in ("digits-test", "noise-test"):
        (folder / place / "png.npz").unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
    assert len(times) > 4
    run_script(evaluate.main, monkeypatch, run, "--ood", noise, "--scores", "likelihood", "png")
    after = results_of(run)
    assert list(after["scores"]) == ["likelihood", "png"]
    assert "typicality_test" not in after
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list(folder.rglob("*.npz"))) == len(times) + 2
    assert after["scores"] == unfitted(before, after["scores"])


def test_numbers_of_another_precision_are_measured_anew(
    run: Path, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = results_of(run)
    folder = run / "ood" / "measured"
    for place in ("digits-test", "noise-test"):
        for name in ("likelihood.npz", "png.npz"):
            os.utime(folder / place / name, ns=(0, 0))
    arguments = ("--ood", noise, "--scores", "likelihood", "png", "--precision", "high")
    run_script(evaluate.main, monkeypatch, run, *arguments)
    after = results_of(run)
    assert after["precision"] == "high"
    for place in ("digits-test", "noise-test"):
        assert (folder / place / "likelihood.npz").stat().st_mtime_ns > 0
        assert (folder / place / "png.npz").stat().st_mtime_ns == 0
    # On a CPU the numbers are the same.
    assert after["scores"] == unfitted(before, after["scores"])


def test_an_ensemble_and_samples_of_images(
    run: Path, compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "ood" / "measured").rglob("*.npz")}
    arguments = ("--ood", compared.noise, "--ood_images", 50, "--scores", "likelihood", "waic")
    run_script(evaluate.main, monkeypatch, run, *arguments, "--ensemble", compared.background)
    results = results_of(run)
    assert results["ensemble"] == [str(compared.background)]
    assert list(results["scores"]) == ["likelihood", "waic"]
    for side in ("in_distribution", "out_of_distribution"):
        assert results[side]["images"] == 50
    # The numbers of all images are still there.
    assert {path: path.stat().st_mtime_ns for path in before} == before
    kept = [
        [
            np.load(run / "ood" / "measured" / f"{place}-50" / f"{name}.npz")
            for place in ("digits-test", "noise-test")
        ]
        for name in ("likelihood", "ensemble")
    ]
    waic = []
    for own, other in zip(*kept, strict=True):
        bits = np.column_stack([own["bits_per_dim"], other["ensemble_bits_per_dim"]])
        nats = -bits * 64 * np.log(2)
        waic.append(nats.mean(axis=1) - nats.var(axis=1))
    expected = detection(*waic).auroc
    assert results["scores"]["waic"]["auroc"]["value"] == pytest.approx(expected.value)


@pytest.mark.slow
def test_the_dimension_is_measured_of_few_images(
    run: Path, noise: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--ood", noise, "--scores", "likelihood", "lid", "--lid_images", 12)
    run_script(evaluate.main, monkeypatch, run, *arguments)
    measured = run / "ood" / "measured"
    for place in ("digits-test", "digits-training", "noise-test"):
        kept = np.load(measured / f"{place}-12" / "lid.npz")
        assert kept["singular_values"].shape == (12, 64)
    # The same images as those of the likelihood, which is measured of all.
    results = results_of(run)
    assert results["out_of_distribution"]["images"] == 130
    figures = results["scores"]["lid"]
    assert (figures["images_in"], figures["images_out"]) == (12, 12)
    assert "Of fewer images: likelihood and dimension: 12 and 12." in capsys.readouterr().out
    assert 0.1 < figures["mean_in"] < 0.7  # the lower of two ranks
    assert figures["auroc"]["low"] <= figures["auroc"]["value"] <= figures["auroc"]["high"]


@pytest.mark.slow
def test_what_another_ensemble_measured_is_not_taken(
    run: Path, compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, randomise
) -> None:
    other = save_run(tmp_path / "other", randomise(untrained(), seed=3, scale=0.1))
    arguments = ("--ood", compared.noise, "--ood_images", 20, "--scores", "waic", "--ensemble")
    file = run / "ood" / "measured" / "noise-test-20" / "ensemble.npz"
    found = []
    for ensemble in ([compared.background], [other], [other, compared.background]):
        run_script(evaluate.main, monkeypatch, run, *arguments, *ensemble)
        found.append(np.load(file)["ensemble_bits_per_dim"])
    assert [columns.shape for columns in found] == [(20, 1), (20, 1), (20, 2)]
    np.testing.assert_array_equal(found[2], np.column_stack([found[1], found[0]]))
    assert np.abs(found[0] - found[1]).min() > 0


@pytest.mark.slow
def test_made_images_are_compared_beside_others(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--ood", "constant", "noisy:64", "digits", "--scores", "likelihood", "png")
    run_script(evaluate.main, monkeypatch, run, *arguments)
    said = capsys.readouterr()
    assert "note: digits are the run's own test images" in said.err
    assert "digits / constant" in said.out
    assert results_of(run, "constant")["scores"]["png"]["auroc"]["value"] == 0
    assert results_of(run, "noisy-64")["scores"]["png"]["auroc"]["value"] > 0.9


@pytest.mark.slow
def test_two_data_sets_at_once(
    run: Path, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = tmp_path / "flat.npz"
    np.savez(flat, images=np.full((5, 8, 8, 1), 128, np.uint8))
    (run / "ood" / "noise.json").unlink()
    run_script(evaluate.main, monkeypatch, run, "--ood", noise, flat, "--scores", "png")
    assert results_of(run, "flat")["scores"]["png"]["auroc"]["value"] == 0
    assert results_of(run, "noise")["scores"]["png"]["auroc"]["value"] > 0.9


def test_what_is_refused(
    run: Path,
    noise: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def refused(*arguments: object) -> str:
        return error_of(evaluate.main, monkeypatch, capsys, *arguments)

    assert "--scores compares data sets: give --ood, too" in refused(run, "--scores", "png")
    assert "--ensemble compares" in refused(run, "--ensemble", run)
    assert "ood_images is 0; it must be at least 1" in refused(run, "--ood_images", 0)
    assert "leave it out" in refused(run, "--ood", noise, "--dequantizations", 2)
    assert "There is no score 'energy'" in refused(run, "--ood", noise, "--scores", "energy")
    assert "twice" in refused(run, "--ood", noise, noise)
    assert "'moonlight' is not available" in refused(run, "--ood", "moonlight")
    larger = ModelConfig(**{**vars(GREY), "image_shape": (16, 16, 1)})
    other = save_run(tmp_path / "larger", untrained(larger))
    assert "those of digits are (8, 8, 1)" in refused(other, "--ood", noise)
    message = refused(run, "--ood", noise, "--background", other)
    assert (
        "takes images of 16 x 16 x 1 with 4 bits, and the run of 8 x 8 x 1 with 4 bits" in message
    )
    for flag in ("--background", "--ensemble"):
        message = refused(run, "--ood", noise, flag, tmp_path / "nothing")
        assert "is no run folder" in message
    colours = tmp_path / "colours.npz"
    np.savez(colours, images=np.zeros((3, 8, 8, 3), np.uint8))
    assert "those of colours are (8, 8, 3)" in refused(run, "--ood", colours)
    conditional = ModelConfig(**{**vars(GREY), "y_condition": True})
    labelled = save_run(tmp_path / "labelled", untrained(conditional))
    assert "conditional on labels" in refused(labelled, "--ood", noise)
    for flag in ("--background", "--ensemble"):
        message = refused(run, "--ood", noise, flag, labelled)
        assert f"{flag} {labelled} is conditional on labels" in message
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == before


def test_tables() -> None:
    rows = [["score", "AUROC"], ["likelihood", "0.1"]]
    assert as_text(rows) == "score       AUROC\nlikelihood  0.1"
    assert as_markdown(rows) == "| score | AUROC |\n| --- | --- |\n| likelihood | 0.1 |"


def test_figures_on_record_are_found_by_any_name() -> None:
    assert [record.value for record in records_of("cifar10", "svhn")] == [3.39, 0.7837, 0.0787]
    assert records_of("cifar10", "svhn_cropped") == records_of("cifar10", "svhn")
    assert records_of("svhn", "cifar10") == ()
