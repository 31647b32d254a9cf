"""The data set protocol, digits, the order of batches, and augmentation."""

import hashlib
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from glow_jax import GlowError, dequantize, to_pixels
from glow_jax.config import DataConfig
from glow_jax.data import Batch, Dataset, InMemory, from_arrays, load_dataset
from glow_jax.data.augmentation import augment, shift_image
from glow_jax.data.batching import batches_in_order, to_batch, training_batches
from glow_jax.data.dataset import hold_out

pytestmark = pytest.mark.usefixtures("quick_compilation")


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
    from sklearn import datasets

    bunch: Any = datasets.load_digits()
    bins = np.minimum(bunch["images"], 15).astype(np.uint8)
    expected = sorted(
        (image.tobytes(), label) for image, label in zip(bins, bunch["target"], strict=True)
    )
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
def test_a_data_set_that_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GlowError, match=message):
        dataset(**changes)


def test_labels_of_one_kind_in_training_and_another_in_test() -> None:
    with pytest.raises(GlowError, match="labels"):
        dataset(test_labels=np.zeros((3, 3), np.uint8))


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


# Order.


def take(n: int, *, seed: int = 1, first_step: int = 0, images: int = 17) -> list[list[int]]:
    batches = training_batches(
        numbered(images), batch_size=5, classes=3, seed=seed, first_step=first_step
    )
    return [numbers(batch) for batch in itertools.islice(batches, n)]


def test_an_epoch_has_every_image_at_most_once_and_drops_the_last_batch() -> None:
    batches = take(9)  # three epochs of three batches
    assert {len(batch) for batch in batches} == {5}
    epochs = [list(itertools.chain(*batches[start : start + 3])) for start in (0, 3, 6)]
    assert [len(set(epoch)) for epoch in epochs] == [15, 15, 15]
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(epoch != sorted(epoch) for epoch in epochs)


def test_over_the_epochs_every_image_is_seen() -> None:
    assert {image for batch in take(30) for image in batch} == set(range(17))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert take(7) == take(7)
    assert take(3) != take(3, seed=2)
    # Epoch 1 of a seed is not epoch 0 of the next.
    assert take(6)[3:] != take(3, seed=2)


@pytest.mark.parametrize("first_step", [1, 3, 4, 8])
def test_training_resumes_exactly(first_step: int) -> None:
    assert take(5, first_step=first_step) == take(13)[first_step : first_step + 5]


def test_a_batch_knows_its_images_and_labels() -> None:
    batches = training_batches(numbered(17), batch_size=5, classes=3, seed=1, first_step=0)
    for batch in itertools.islice(batches, 4):
        assert batch.indices.tolist() == numbers(batch)
        np.testing.assert_array_equal(batch.labels, np.eye(3)[batch.indices % 3])


def test_evaluation_takes_every_image_in_order() -> None:
    batches = list(batches_in_order(numbered(17), batch_size=5, classes=3))
    assert [len(batch.images) for batch in batches] == [5, 5, 5, 2]
    assert list(itertools.chain(*map(numbers, batches))) == list(range(17))
    assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(17))
    (whole,) = batches_in_order(numbered(17), batch_size=50, classes=3)
    assert numbers(whole) == list(range(17))


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


# Augmentation.


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ((0, 0), [[1, 2, 3], [4, 5, 6]]),
        ((1, 0), [[0, 0, 0], [1, 2, 3]]),  # down
        ((-1, 0), [[4, 5, 6], [0, 0, 0]]),  # up
        ((0, 1), [[0, 1, 2], [0, 4, 5]]),  # right
        ((0, -2), [[3, 0, 0], [6, 0, 0]]),  # left
        ((-1, 1), [[0, 4, 5], [0, 0, 0]]),
        ((2, 0), [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_shift_image(shift: tuple[int, int], expected: list[list[int]]) -> None:
    image = jnp.array([[1, 2, 3], [4, 5, 6]], jnp.uint8)
    shifted = shift_image(jnp.stack([image, 10 * image], axis=-1), jnp.array(shift))
    assert shifted.dtype == jnp.uint8
    np.testing.assert_array_equal(shifted[..., 0], expected)
    np.testing.assert_array_equal(shifted[..., 1], 10 * np.array(expected))


DRAWS = 4000


def augmented(height: int, width: int, *, flips: bool) -> np.ndarray:
    """A picture whose pixel (row, column) holds both, many times over, after augmentation."""
    row, column = np.indices((height, width))
    image = np.stack([row + 1, column + 1], axis=-1).astype(np.uint8)  # 0 is what comes into view
    keys = jax.random.split(jax.random.key(0), DRAWS)
    images = jnp.asarray(np.tile(image, (DRAWS, 1, 1, 1)))
    return np.asarray(jax.jit(augment, static_argnames="flips")(images, keys, flips=flips))


def weights_by_hand(size: int) -> dict[int, float]:
    """Of each shift: a uniform draw in [-size / 10, size / 10], rounded."""
    reach = size / 10
    edge = round(reach)
    weights = dict.fromkeys(range(-edge, edge + 1), 1 / (2 * reach))
    weights[edge] = weights[-edge] = (reach - (edge - 0.5)) / (2 * reach)
    return weights


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (8, 32)])
def test_shifts_are_rounded_uniform_draws(height: int, width: int) -> None:
    images = augmented(height, width, flips=False)
    middle = images[:, height // 2, width // 2].astype(int)  # always in view
    shifts = np.array([height // 2, width // 2]) + 1 - middle  # down, right
    for direction, size in enumerate((height, width)):
        expected = weights_by_hand(size)
        assert sum(expected.values()) == pytest.approx(1)
        found = {shift: int(np.sum(shifts[:, direction] == shift)) for shift in expected}
        assert sum(found.values()) == DRAWS
        frequencies = [DRAWS * weight for weight in expected.values()]
        assert scipy.stats.chisquare(list(found.values()), frequencies).pvalue > 0.001
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 5 / np.sqrt(DRAWS)
    # Nothing but the shift happens.
    for image, shift in zip(images[:20], shifts[:20], strict=True):
        np.testing.assert_array_equal(
            image[..., 0] > 0,
            np.outer(
                (np.arange(height) >= shift[0]) & (np.arange(height) < height + shift[0]),
                (np.arange(width) >= shift[1]) & (np.arange(width) < width + shift[1]),
            ),
        )


def test_weights_at_32_pixels() -> None:
    weights = weights_by_hand(32)
    assert sorted(weights) == [-3, -2, -1, 0, 1, 2, 3]
    assert weights[3] == pytest.approx(0.7 / 6.4)
    assert weights[0] == pytest.approx(1 / 6.4)


def test_flips_mirror_half_of_the_images() -> None:
    images = augmented(8, 8, flips=True).astype(int)
    steps = images[:, 4, 4, 1] - images[:, 4, 3, 1]  # columns count down in a mirrored image
    assert set(steps) == {-1, 1}
    assert scipy.stats.binomtest(int(np.sum(steps == -1)), DRAWS).pvalue > 0.001
    rows = images[:, 4, 4, 0] - images[:, 3, 4, 0]
    assert set(rows) == {1}


def test_an_image_has_the_same_augmentation_in_any_batch() -> None:
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)), jnp.uint8)
    keys = jax.random.split(jax.random.key(0), 6)
    together = augment(images, keys, flips=True)
    assert together.dtype == jnp.uint8
    assert not np.array_equal(together, images)
    np.testing.assert_array_equal(augment(images[4:], keys[4:], flips=True), together[4:])


def test_labels_out_of_range_are_refused_where_batches_are_made() -> None:
    split = InMemory(np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, -1]))
    with pytest.raises(GlowError, match="-1"):
        to_batch(split, np.arange(3), 2)
    assert to_batch(split, np.arange(2), 2).labels.tolist() == [[1, 0], [0, 1]]


def test_labels_are_left_out_where_there_are_no_classes() -> None:
    for labels in (np.array([0, 6]), np.array([[0, 1, 1], [1, 0, 0]])):
        split = InMemory(np.zeros((2, 2, 2, 1), np.uint8), labels)
        assert to_batch(split, np.arange(2), 0).labels.shape == (2, 0)


@pytest.mark.parametrize(
    "labels", [np.zeros(3, int), np.zeros(30, int), np.array(1), np.array(["a"] * 20), np.ones(20)]
)
def test_labels_that_do_not_belong_to_the_images_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(GlowError, match="Labels must be"):
        from_arrays("mine", np.zeros((20, 2, 2, 1), np.uint8), labels)


def test_digits_have_one_size() -> None:
    with pytest.raises(GlowError, match="8 x 8"):
        load_dataset(DataConfig(dataset="digits", image_size=32))
