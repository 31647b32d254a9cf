"""How well conditional models tell labels: figures, what is printed, cards and samples of them."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from demo_runs import SEVERAL, digits_run, several_run
from ood_runs import GREY, untrained
from PIL import Image
from training_runs import error_of, run_script

from glow_jax.cli.evaluate import main as eval_main
from glow_jax.cli.sample import main as sample_main
from glow_jax.cli.to_hub import main as to_hub
from glow_jax.config.json import build
from glow_jax.data import Dataset, from_arrays
from glow_jax.devices import Devices
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dataset_of, evaluate
from glow_jax.evaluation.labels import Accuracy, label_figures, rules
from glow_jax.evaluation.likelihood import dequantized
from glow_jax.evaluation.png import enlarged
from glow_jax.evaluation.same_data import data_of
from glow_jax.evaluation.samples import class_numbers, grid, labels_in_turn, sample_pixels
from glow_jax.model import abstract_glow, weights_digest
from glow_jax.publishing.results import measured_of
from glow_jax.runs import LoadedRun, RunData, load_run, write_data

CLASSIFYING = dataclasses.replace(SEVERAL, classifier=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, randomise) -> LoadedRun:
    """Conditional on the digit."""
    return load_run(digits_run(tmp_path_factory.mktemp("one") / "run", "conditional", randomise))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, randomise) -> LoadedRun:
    """Conditional on the digit and its groups, with a classifier."""
    folder = tmp_path_factory.mktemp("several") / "run"
    several_run(folder, randomise, CLASSIFYING)
    run = load_run(folder)
    write_data(folder, data_of(dataset_of(run)))
    return run


def test_figures_agree_with_every_density_of_every_class(run: LoadedRun) -> None:
    model, test = run.model, dataset_of(run).test
    part = test[np.arange(len(test))]
    x = dequantized(model, part.images, np.arange(len(test), dtype=np.uint32))
    each = np.stack(
        [model.log_prob(x, jnp.tile(y, (len(test), 1))) for y in jnp.eye(10)], axis=1
    ).astype(np.float64)  # (N, classes), the whole density of each
    logits = model.classify(model.encode(x, jnp.eye(10)[part.labels]).latents)

    found = label_figures(model, test, Devices(), batch_size=100)
    assert list(found.accuracy) == ["classifier", "likelihood"]
    assert found.auroc == ()
    for rule, scores in (("classifier", np.asarray(logits)), ("likelihood", each)):
        right = scores.argmax(axis=1) == part.labels
        assert found.accuracy[rule].value == right.mean()
        spread = np.sqrt(right.mean() * (1 - right.mean()) / (len(right) - 1))
        assert found.accuracy[rule].standard_error == pytest.approx(spread, rel=1e-12)
    own = each[np.arange(len(test)), part.labels]
    saved = -np.log(np.exp(each - own[:, None]).mean(axis=1)).mean()
    # Densities of about 100 nats in float32, of which only the top latent's share differs.
    assert found.class_bits_per_dim == pytest.approx(saved / np.log(2) / 64, abs=1e-6)
    again = label_figures(model, test, Devices(), batch_size=7)
    assert again.accuracy == found.accuracy
    assert again.class_bits_per_dim == pytest.approx(found.class_bits_per_dim, abs=1e-7)


def test_a_class_that_is_ruled_out_saves_a_tenth(run: LoadedRun, randomise) -> None:
    """With one of ten classes ruled out, and the others alike, log2(10 / 9) bits are saved."""
    model = randomise(untrained(run.config.model), scale=0.0)  # a copy
    kernel = model.top_prior.from_label.kernel
    kernel[...] = jnp.zeros_like(kernel[...]).at[0, 0].set(100.0)  # a mean far from every image
    images = np.zeros((36, 8, 8, 1), np.uint8)
    labels = np.arange(36) % 9 + 1
    test = from_arrays("x", images, labels, test_images=images, test_labels=labels).test
    found = label_figures(model, test, Devices(), batch_size=36)
    assert found.class_bits_per_dim == pytest.approx(np.log2(10 / 9) / 64, rel=1e-6)
    assert found.accuracy["likelihood"].value == 1 / 9  # of equal ones, the first


def test_auroc_counts_the_pairs_in_order(several: LoadedRun) -> None:
    model, test = several.model, dataset_of(several).test
    part = test[np.arange(len(test))]
    x = dequantized(model, part.images, np.arange(len(test), dtype=np.uint32))
    y = part.labels.astype(np.float32)
    logits = np.asarray(model.classify(model.encode(x, y).latents), np.float64)
    found = label_figures(model, test, Devices(), batch_size=100)
    assert found.accuracy == {}
    assert found.class_bits_per_dim is None
    for label, value in enumerate(found.auroc):
        has, has_not = (logits[part.labels[:, label] == kind, label] for kind in (1, 0))
        above = has[:, None] > has_not[None]
        # Logits of two batch sizes differ in the last digit, which may swap two of them.
        assert value == pytest.approx(above.mean(), abs=1e-4)


def test_a_label_of_all_images_or_of_none_has_no_auroc(randomise) -> None:
    config = dataclasses.replace(CLASSIFYING, y_classes=3)
    labels = np.zeros((40, 3), np.uint8)
    labels[:, 0] = 1
    labels[::2, 1] = 1
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    test = from_arrays("x", images, labels, test_images=images, test_labels=labels).test
    model = randomise(untrained(config), scale=0.1)
    found = label_figures(model, test, Devices(), batch_size=40).auroc
    assert (found[0], found[2]) == (None, None)
    assert found[1] is not None


def test_rules_are_what_a_model_has() -> None:
    without = dataclasses.replace(CLASSIFYING, multi_class=False, classifier=False)
    assert rules(abstract_glow(without)) == ("likelihood",)
    assert rules(abstract_glow(SEVERAL)) == ()
    assert rules(abstract_glow(GREY)) == ()


def results_of(run: LoadedRun) -> dict:
    return json.loads((run.folder / "results.json").read_text())


def test_eval_prints_and_writes_accuracies_and_the_card_states_them(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run_script(eval_main, monkeypatch, run.folder)
    said, results = capsys.readouterr().out, results_of(run)
    assert results["weights_sha256"] == weights_digest(run.average_or_model)
    found = evaluate(run).labels
    assert found is not None
    for rule in ("classifier", "likelihood"):
        accuracy = found.accuracy[rule]
        assert f"{accuracy.value:.4f} +- {accuracy.standard_error:.4f} by the {rule}\n" in said
        assert results[f"{rule}_accuracy"] == accuracy.value
    assert f"knowing the class saves {found.class_bits_per_dim:.4f} bits/dim\n" in said

    run_script(to_hub, monkeypatch, run.folder, "--output", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    value, error = results["classifier_accuracy"], results["classifier_accuracy_standard_error"]
    assert f"| accuracy | {value:.4f} +- {error:.4f} by the classifier, " in card
    assert f"| without the class | bits/dim are {found.class_bits_per_dim:.4f} higher: " in card
    assert 'metrics: ["bits_per_dim", "accuracy"]' in card
    assert "; a row for each class, from the top, by number: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card
    with Image.open(tmp_path / "model" / "card.png") as picture:
        assert picture.width / picture.height == pytest.approx((8 * 9 + 1) / (10 * 9 + 1))


def test_eval_prints_and_writes_the_auroc_of_labels_and_the_card_states_them(
    several: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    run_script(eval_main, monkeypatch, several.folder)
    said, auroc = capsys.readouterr().out, results_of(several)["label_auroc"]
    assert len(auroc) == 15
    assert f"AUROC of the labels {np.mean(auroc):.4f}, the mean of 15; the lowest is " in said
    assert f" is {min(auroc):.4f}, of label {np.argmin(auroc)}\n" in said

    run_script(to_hub, monkeypatch, several.folder, "--output", tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    every = ", ".join(f"{label}: {value:.3f}" for label, value in enumerate(auroc))
    assert f"| AUROC of labels by number | {every} |" in card
    rows = [" + ".join(map(str, numbers)) for numbers in data_of_run(several).label_sets]
    assert len(rows) == 10
    assert f"; a row for each set of labels, from the top, by number: {', '.join(rows)}." in card


def data_of_run(run: LoadedRun) -> RunData:
    assert run.data is not None
    return run.data


def test_results_without_labels_are_read_as_before(run: LoadedRun) -> None:
    plain = {
        "dataset": "x",
        "split": "test",
        "images": 3,
        "step": 1,
        "averaged_parameters": False,
        "bits_per_dim": 3.0,
        "standard_error": 0.1,
    }
    old = measured_of(plain)
    assert old is not None
    assert (old.accuracies, old.class_bits_per_dim, old.label_auroc) == ([], None, ())
    labelled = measured_of({**plain, "label_auroc": [0.5, None]})
    assert labelled is not None
    assert labelled.label_auroc == (0.5, None)
    assert measured_of({**plain, "label_auroc": [0.5, "high"]}) is None
    assert (old.reconstruction_images_off, labelled.reconstruction_images_off) == (0, 0)


def mine(labels: np.ndarray) -> Dataset:
    return from_arrays("mine", np.zeros((len(labels), 4, 4), np.uint8), labels)


def test_a_run_remembers_labels_that_occur_together(tmp_path: Path) -> None:
    rows = np.array([[1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]] * 10)
    data = data_of(mine(rows))
    assert data.label_sets == ((1,), (), (0, 2))
    alike = from_arrays(
        "x",
        np.zeros((4, 4, 4), np.uint8),
        rows[[0, 1, 1, 0]],
        test_images=np.zeros((1, 4, 4), np.uint8),
        test_labels=rows[:1],
    )
    assert data_of(alike).label_sets == ((0, 2), (1,))  # in the order of the images
    assert data_of(mine(np.arange(60) % 3)).label_sets == ()
    (tmp_path / "run").mkdir()
    write_data(tmp_path / "run", data)
    values = json.loads((tmp_path / "run" / "data.json").read_text())
    assert build(RunData, values, "data") == data
    for wrong in ([[1], "2"], [[1], [0.5]], [1]):
        with pytest.raises(GlowError, match=r"data\.label_sets"):
            build(RunData, values | {"label_sets": wrong}, "data")


def sets_in(labels: object) -> list[tuple[int, ...]]:
    return [tuple(np.flatnonzero(row).tolist()) for row in np.asarray(labels)]


def test_samples_take_sets_of_labels_in_turn(several: LoadedRun) -> None:
    data = data_of_run(several)
    in_turn = labels_in_turn(several.model, 12, data)
    assert sets_in(in_turn) == [*data.label_sets, *data.label_sets[:2]]
    test = dataset_of(several).test
    occur = sets_in(test[np.arange(len(test))].labels)
    assert set(data.label_sets) == set(occur)
    # A stranger's data.json may name classes that the model has not.
    strange = dataclasses.replace(data, label_sets=((1, 99), (-1,)))
    assert sets_in(labels_in_turn(several.model, 2, strange)) == [(1,), ()]
    one_class = untrained(dataclasses.replace(CLASSIFYING, multi_class=False))
    assert sets_in(labels_in_turn(one_class, 2, strange)) == [(0,), (1,)]


def test_sample_takes_several_labels_where_images_have_several(
    run: LoadedRun, several: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path = tmp_path / "samples.png"
    words = ("--label", "8, 14", "--num", 1, "--output", path, several.folder)
    run_script(sample_main, monkeypatch, *words)
    y = jnp.zeros((1, 15)).at[0, jnp.array([8, 14])].set(1)
    expected = sample_pixels(several.model, jax.random.key(0), 1, temperature=0.7, y=y)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), enlarged(grid(expected)))
    message = error_of(sample_main, monkeypatch, capsys, run.folder, "--label", "8,9")
    assert "There is no class 8,9" in message


def test_a_label_may_have_a_comma_in_its_name() -> None:
    several = dataclasses.replace(CLASSIFYING, y_classes=3)
    names = ("red, blue", "red", "blue")
    assert class_numbers("red, blue", names, several) == [0]
    assert class_numbers("blue,red", names, several) == [2, 1]
    one = dataclasses.replace(several, multi_class=False)
    with pytest.raises(GlowError, match=r"no class blue,red"):
        class_numbers("blue,red", names, one)


@pytest.mark.slow
def test_the_picture_of_a_card_has_a_row_for_each_of_the_first_labels(
    tmp_path: Path, randomise
) -> None:
    config = dataclasses.replace(GREY, y_condition=True, y_classes=20)
    model = randomise(untrained(config), scale=0.1)
    model.save_pretrained(tmp_path / "many")
    card = (tmp_path / "many" / "README.md").read_text()
    said = "; a row for each of the first 16 of 20 classes, from the top, by number: 0, 1"
    assert said in card
    with Image.open(tmp_path / "many" / "card.png") as picture:
        assert picture.width / picture.height == pytest.approx((8 * 9 + 1) / (16 * 9 + 1))


def test_numbers_that_are_not_finite_tell_no_class(run: LoadedRun, several: LoadedRun) -> None:
    """With logs of 100, exp(3 logs) overflows: logits and class priors are infinite or NaN."""
    for one in (run, several):
        model = load_run(one.folder).model
        test = dataset_of(one).test
        assert model.classifier is not None
        model.classifier.logs[...] = model.classifier.logs[...] + 100
        found = label_figures(model, test, Devices(), batch_size=200)
        if one is several:
            assert all(area is not None and 0 <= area <= 1 for area in found.auroc)
            continue
        assert found.accuracy["classifier"] == Accuracy(0.0, 0.0)
        assert found.accuracy["likelihood"].value > 0
        from_label = model.top_prior.from_label
        assert from_label is not None
        from_label.logs[...] = from_label.logs[...] + 100
        found = label_figures(model, test, Devices(), batch_size=200)
        assert found.accuracy["likelihood"] == Accuracy(0.0, 0.0)
        assert found.class_bits_per_dim is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"classifier": False},
        {"dequantization": "variational"},
        {"learn_top": False},
    ],
)
def test_figures_do_not_depend_on_the_devices(changes: dict, randomise) -> None:
    config = dataclasses.replace(CLASSIFYING, multi_class=False, y_classes=10)
    model = randomise(untrained(dataclasses.replace(config, **changes)), scale=0.1)
    images = np.random.default_rng(0).integers(0, 256, (36, 8, 8, 1), dtype=np.uint8)
    test = from_arrays("x", images, np.arange(36) % 10).test
    one, two = (label_figures(model, test, Devices(n), batch_size=3) for n in (1, 2))
    assert one.accuracy == two.accuracy
    assert one.class_bits_per_dim == pytest.approx(two.class_bits_per_dim, abs=1e-7)
    assert set(one.accuracy) == set(rules(model))
