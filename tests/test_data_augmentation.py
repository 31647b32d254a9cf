"""Shifts and flips, against the distribution of the PyTorch code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from glow_jax.data.augmentation import augment, shift_image

DRAWS = 4000

compiled_augment = jax.jit(augment, static_argnames=("flips", "shifts"))


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


def augmented(height: int, width: int, *, flips: bool) -> np.ndarray:
    """A picture whose pixel (row, column) holds both, many times over, after augmentation."""
    row, column = np.indices((height, width))
    image = np.stack([row + 1, column + 1], axis=-1).astype(np.uint8)  # 0 is what comes into view
    keys = jax.random.split(jax.random.key(0), DRAWS)
    images = jnp.asarray(np.tile(image, (DRAWS, 1, 1, 1)))
    return np.asarray(compiled_augment(images, keys, flips=flips))


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
    together = compiled_augment(images, keys, flips=True)
    assert together.dtype == jnp.uint8
    assert not np.array_equal(together, images)
    np.testing.assert_array_equal(compiled_augment(images[4:], keys[4:], flips=True), together[4:])


def test_without_shifts_and_flips_nothing_changes():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3)), jnp.uint8)
    keys = jax.random.split(jax.random.key(0), len(images))
    same = compiled_augment(images, keys, flips=False, shifts=False)
    np.testing.assert_array_equal(same, images)
    flipped = np.asarray(compiled_augment(images, keys, flips=True, shifts=False))
    for image, other in zip(np.asarray(images), flipped, strict=True):
        assert np.array_equal(image, other) or np.array_equal(image[:, ::-1], other)
