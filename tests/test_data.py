"""The data set protocol, digits, single batches, and whether a data set fits a model."""

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets

from glow_jax import GlowError, dequantize, to_pixels
from glow_jax.config import DataConfig, ModelConfig
from glow_jax.data import Batch, Dataset, InMemory, from_arrays, load_dataset
from glow_jax.data.batching import to_batch
from glow_jax.data.dataset import hold_out
from glow_jax.data.fit import check_fits, check_image_shape


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataConfig(dataset="digits"))


def numbered(n: int) -> InMemory:
    """Images that say which they are: image i is filled with i."""
    images = np.tile(np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), (1, 4, 4, 1))
    return InMemory(images, np.arange(n) % 3)


def numbers(batch: Batch | InMemory) -> list[int]:
    return batch.images[:, 0, 0, 0].tolist()


# Digits.


def test_digits(digits: Dataset) -> None:
    assert (digits.name, digits.classes, digits.image_shape) == ("digits", 10, (8, 8, 1))
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert not digits.flips  # a mirrored 2 is no digit
    assert not digits.multi_hot
    for split in (digits.train, digits.test):
        part = split[np.arange(len(split))]
        assert part.images.dtype == np.uint8
        assert set(np.unique(part.images)) == {17 * grey for grey in range(16)}
        assert set(np.unique(part.labels)) == set(range(10))


def test_digits_are_those_of_scikit_learn(digits: Dataset) -> None:
    values, labels = datasets.load_digits(return_X_y=True)
    bins = np.minimum(values, 15).astype(np.uint8)
    expected = sorted((image.tobytes(), label) for image, label in zip(bins, labels, strict=True))
    found = []
    for split in (digits.train, digits.test):
        part = split[np.arange(len(split))]
        found += [
            (image.tobytes(), label)
            for image, label in zip(part.images // 17, part.labels, strict=True)
        ]
    assert sorted(found) == expected  # each once, with its label


def test_the_split_of_digits_is_fixed(digits: Dataset) -> None:
    test = digits.test[np.arange(360)]
    digest = hashlib.sha256(test.images.tobytes() + test.labels.astype(np.uint8).tobytes())
    # Results are comparable only while this holds.
    assert digest.hexdigest()[:16] == "b9afffea672c0f2b"


def test_digits_come_back_from_four_bits(digits: Dataset) -> None:
    pixels = jnp.asarray(digits.test[np.arange(360)].images)
    x = dequantize(pixels, jax.random.key(0), n_bits=4)
    np.testing.assert_array_equal(to_pixels(x, n_bits=4), pixels)


def test_digits_have_one_size() -> None:
    with pytest.raises(GlowError, match="8 x 8"):
        load_dataset(DataConfig(dataset="digits", image_size=32))


def test_an_unknown_data_set() -> None:
    with pytest.raises(GlowError, match="'digit' is not available; the nearest is digits"):
        load_dataset(DataConfig(dataset="digit"))


# The protocol.


def dataset(**changes: np.ndarray) -> Dataset:
    def split(name: str, default: InMemory) -> InMemory:
        images = changes.get(f"{name}_images", default.images)
        return InMemory(images, changes.get(f"{name}_labels", default.labels))

    return Dataset("mine", 3, train=split("train", numbered(6)), test=split("test", numbered(3)))


def test_what_a_data_set_says() -> None:
    mine = dataset()
    assert (mine.image_shape, mine.multi_hot, len(mine.train)) == ((4, 4, 1), False, 6)
    multi_hot = dataset(
        train_labels=np.ones((6, 3), np.uint8), test_labels=np.zeros((3, 3), np.uint8)
    )
    assert multi_hot.multi_hot


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((6, 4, 4, 1))}, "split train: images must be uint8.*float64"),
        ({"test_images": np.zeros((3, 4, 4), np.uint8)}, "split test: images must be.*N, H, W, C"),
        ({"test_images": np.zeros((3, 4, 8, 1), np.uint8)}, r"split test.*\(4, 8, 1\)"),
        (
            {"test_images": np.zeros((0, 4, 4, 1), np.uint8), "test_labels": np.zeros(0, int)},
            "split test has no images",
        ),
        ({"train_labels": np.zeros(5, int)}, r"split train: labels.*\(6,\).*not \(5,\)"),
        ({"train_labels": np.zeros((6, 4), int)}, r"labels.*\(6, 3\).*not \(6, 4\)"),
        ({"train_labels": np.zeros(6)}, "split train: labels.*float64"),
        ({"test_labels": np.array([0, 3, 1])}, r"split test: a label is 3.*0\.\.2"),
        ({"train_labels": np.array([0, 1, 2, -1, 0, 0])}, r"split train: a label is -1"),
        (
            {"train_labels": np.full((6, 3), 2), "test_labels": np.zeros((3, 3), int)},
            r"a label is 2.*0\.\.1",
        ),
    ],
)
def test_a_data_set_that_contradicts_itself(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GlowError, match=message):
        dataset(**changes)


def test_labels_of_one_kind_in_training_and_another_in_test() -> None:
    with pytest.raises(GlowError, match="labels"):
        dataset(test_labels=np.zeros((3, 3), np.uint8))


@pytest.mark.parametrize(
    "labels", [np.zeros(3, int), np.zeros(30, int), np.array(1), np.array(["a"] * 20), np.ones(20)]
)
def test_labels_that_do_not_belong_to_the_images_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(GlowError, match="Labels must be"):
        from_arrays("mine", np.zeros((20, 2, 2, 1), np.uint8), labels)


@pytest.mark.parametrize(("fraction", "held"), [(0.1, 5), (0.5, 25), (0.0, 0)])
def test_hold_out_is_disjoint_complete_and_fixed(fraction: float, held: int) -> None:
    kept, validation = (
        numbers(part[np.arange(len(part))]) for part in hold_out(numbered(50), fraction)
    )
    assert len(validation) == held
    assert sorted(kept + validation) == list(range(50))
    again = hold_out(numbered(50), fraction)[1]
    assert numbers(again[np.arange(len(again))]) == validation
    assert not held or validation != list(range(held))  # drawn, not the first


# A batch.


def test_a_batch() -> None:
    batch = to_batch(numbered(6), np.array([4, 0]), 3)
    assert numbers(batch) == [4, 0]
    np.testing.assert_array_equal(batch.labels, [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(batch.indices, [4, 0])
    assert (batch.images.dtype, batch.labels.dtype) == (np.uint8, np.float32)
    multi_hot = InMemory(numbered(2).images, np.array([[1, 1, 0], [0, 0, 1]]))
    batch = to_batch(multi_hot, np.array([1, 0]), 3)
    np.testing.assert_array_equal(batch.labels, [[0, 0, 1], [1, 1, 0]])
    assert batch.labels.dtype == np.float32


def test_labels_out_of_range_are_refused_where_batches_are_made() -> None:
    split = InMemory(np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, -1]))
    with pytest.raises(GlowError, match="-1"):
        to_batch(split, np.arange(3), 2)
    assert to_batch(split, np.arange(2), 2).labels.tolist() == [[1, 0], [0, 1]]


def test_labels_are_left_out_where_there_are_no_classes() -> None:
    for labels in (np.array([0, 6]), np.array([[0, 1, 1], [1, 0, 0]])):
        split = InMemory(np.zeros((2, 2, 2, 1), np.uint8), labels)
        assert to_batch(split, np.arange(2), 0).labels.shape == (2, 0)


# Whether a data set fits a model.


def model_of(**changes: Any) -> ModelConfig:
    """A model that fits `dataset()`."""
    config = ModelConfig(image_shape=(4, 4, 1), L=1, y_classes=3, y_condition=True)
    return dataclasses.replace(config, **changes)


def multi_hot_dataset() -> Dataset:
    return dataset(train_labels=np.ones((6, 3), np.uint8), test_labels=np.zeros((3, 3), np.uint8))


def test_a_data_set_that_fits_a_model() -> None:
    for source in ("", "runs/mine"):
        check_fits(model_of(), dataset(), source=source)
        check_fits(model_of(multi_class=True), multi_hot_dataset(), source=source)
    # Labels do not matter to a model that takes none.
    check_fits(model_of(y_condition=False, y_classes=10), dataset(), source="runs/mine")
    # The data set decides the shape and the classes of a new model.
    check_fits(model_of(image_shape=(8, 8, 3), y_classes=10), dataset())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_shape": (8, 8, 1)},
            r"^runs/mine takes images of \(8, 8, 1\); those of mine are \(4, 4, 1\): give another "
            r"--dataset\.$",
        ),
        ({"y_classes": 5}, r"^runs/mine is conditional on 5 classes; mine has 3\.$"),
        ({"multi_class": True}, r"^The labels of mine are one class per image; runs/mine takes"),
    ],
)
def test_a_data_set_that_does_not_fit_a_model(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GlowError, match=message):
        check_fits(
            model_of(**changes), dataset(), source="runs/mine", advice="give another --dataset"
        )


def test_a_data_set_that_does_not_fit_a_new_model() -> None:
    with pytest.raises(GlowError, match=r"one class per image: leave out --multi_class\.$"):
        check_fits(model_of(multi_class=True), dataset())
    with pytest.raises(GlowError, match=r"multi-hot per image: give --multi_class\.$"):
        check_fits(model_of(), multi_hot_dataset())
    without = from_arrays("bare", np.zeros((20, 4, 4, 1), np.uint8))
    with pytest.raises(GlowError, match=r"^bare has no labels: leave out --y_condition\.$"):
        check_fits(model_of(), without)


def test_images_that_do_not_fit_a_model() -> None:
    message = r"^The model takes images of \(8, 8, 1\); those of some are \(4, 4, 1\)\.$"
    with pytest.raises(GlowError, match=message):
        check_image_shape(
            model_of(image_shape=(8, 8, 1)), numbered(3), name="some", source="The model"
        )
