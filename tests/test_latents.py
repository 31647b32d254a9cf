"""Ways through latent space, and nearest images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import Pair, images

from glow_jax import latents
from glow_jax.data.dataset import InMemory
from glow_jax.errors import GlowError
from glow_jax.evaluation.neighbours import nearest
from glow_jax.layers.squeeze import Squeeze

SHAPES = ((4, 4, 2), (2, 2, 8))
T = np.linspace(0, 1, 7)


def draw(seed: int, batch: int = 1, scale: float = 1.0) -> latents.Noise:
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return tuple(
        scale * jax.random.normal(key, (batch, *shape))
        for key, shape in zip(keys, SHAPES, strict=True)
    )


def vectors(noise: latents.Noise) -> np.ndarray:
    """One row for each image, over the entries of all levels: (B, D)."""
    return np.concatenate([np.asarray(e, np.float64).reshape(len(e), -1) for e in noise], axis=1)


def norms(noise: latents.Noise) -> np.ndarray:
    return np.linalg.norm(vectors(noise), axis=1)


# Between two images


@pytest.mark.parametrize("way", [latents.lerp, latents.slerp])
def test_the_ends_of_a_way_are_exact(way):
    start, end = draw(0, 3), draw(1, 3, scale=2.5)
    jax.tree.map(np.testing.assert_array_equal, way(start, end, 0.0), start)
    jax.tree.map(np.testing.assert_array_equal, way(start, end, 1.0), end)


def test_a_line_is_straight():
    start, end = draw(0), draw(1)
    expected = np.outer(1 - T, vectors(start)) + np.outer(T, vectors(end))
    np.testing.assert_allclose(vectors(latents.lerp(start, end, T)), expected, atol=1e-6)


def test_an_arc_has_equal_angles_and_norms_in_between():
    start, end = draw(0), draw(1, scale=3.0)
    way = latents.slerp(start, end, T)
    lengths = norms(way)
    expected = (1 - T) * norms(start) + T * norms(end)
    np.testing.assert_allclose(lengths, expected, rtol=1e-5)
    unit = vectors(way) / lengths[:, None]
    angles = np.arccos(np.sum(unit[1:] * unit[:-1], axis=1))
    np.testing.assert_allclose(angles, angles[0], rtol=1e-4)
    whole = np.arccos(unit[0] @ unit[-1])
    assert angles.sum() == pytest.approx(whole, rel=1e-4)


def test_the_angle_is_that_of_all_levels_together():
    # Orthogonal as a whole, though each level's entries are parallel or opposite.
    start = (jnp.ones((1, 4, 4, 2)), jnp.ones((1, 2, 2, 8)))
    end = (start[0], -start[1])
    middle = latents.slerp(start, end, 0.5)
    np.testing.assert_allclose(middle[0], np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(middle[1], 0, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1 + 1e-6, 2.0])
def test_the_arc_between_parallel_vectors_is_the_line(factor: float):
    start = draw(0)
    end = latents.move(start, start, factor - 1)
    np.testing.assert_allclose(
        vectors(latents.slerp(start, end, T)), vectors(latents.lerp(start, end, T)), rtol=1e-5
    )


def test_opposite_vectors_give_numbers():
    start = draw(0)
    opposite = jax.tree.map(jnp.negative, start)
    way = vectors(latents.slerp(start, opposite, T))
    np.testing.assert_allclose(way, np.outer(1 - 2 * T, vectors(start)), atol=1e-6)


@pytest.mark.parametrize("other", [0, 1])  # 0: parallel to itself
def test_gradients_of_an_arc_are_finite_and_right(other: int):
    start, end = draw(0), draw(other)

    def height(t: float) -> jax.Array:
        return jnp.sum(latents.slerp(start, end, t)[0])

    slope = float(jax.grad(height)(0.3))
    assert slope == pytest.approx(float(height(0.301) - height(0.299)) / 2e-3, abs=0.02)
    by_end = jax.grad(lambda end: jnp.sum(latents.slerp(start, end, 0.3)[1]))(end)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in by_end)


# Towards a class


def test_a_class_direction_goes_from_mean_to_mean():
    noise, labels = draw(0, 6), np.array([3, 1, 3, 0, 1, 3])
    direction = latents.class_direction(noise, labels, 3, 1)
    rows = vectors(noise)
    expected = rows[[1, 4]].mean(axis=0) - rows[[0, 2, 5]].mean(axis=0)
    np.testing.assert_allclose(vectors(direction)[0], expected, atol=1e-6)
    moved = latents.move(latents.class_direction(noise, labels, 3, 3), direction, T)
    np.testing.assert_allclose(vectors(moved), np.outer(T, expected), atol=1e-6)


def test_a_class_without_images_is_named():
    with pytest.raises(GlowError, match="None of the 2 images is of class 7"):
        latents.class_direction(draw(0, 2), np.array([0, 1]), 0, 7)


def test_a_mean_of_batches_is_the_mean_of_all():
    noise = draw(0, 7, scale=3.0)
    parts = [tuple(entry[part] for entry in noise) for part in (slice(3), slice(3, 7))]
    for mean, entry in zip(latents.mean_noise(parts), noise, strict=True):
        expected = np.asarray(entry, np.float64).mean(axis=0, keepdims=True)
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
    with pytest.raises(GlowError, match="no image to take a mean of"):
        latents.mean_noise([])


# A level at a time


@pytest.mark.parametrize("touched", [[True, False], np.array([False, True])])
def test_a_change_touches_the_chosen_levels(touched):
    before, after = draw(0), draw(1, 3)
    new = latents.at_levels(before, after, touched)
    for was_touched, entry, old, changed in zip(touched, new, before, after, strict=True):
        expected = changed if was_touched else np.repeat(old, 3, axis=0)
        np.testing.assert_array_equal(entry, expected)


def test_levels_come_one_by_one_coarsest_first():
    noise = draw(0)
    fine, top = (np.asarray(entry) for entry in latents.level_by_level(noise))
    for row, (has_fine, has_top) in enumerate([(0, 0), (0, 1), (1, 1)]):
        np.testing.assert_array_equal(fine[row], has_fine * noise[0][0])
        np.testing.assert_array_equal(top[row], has_top * noise[1][0])


def test_noise_laid_out_as_an_image_is_squeezed_back():
    noise = draw(0, 2)
    image = latents.as_image(noise)
    assert image.shape == (2, 8, 8, 1)
    squeezed, _ = Squeeze().forward(image)
    np.testing.assert_array_equal(squeezed[..., 2:], noise[0])
    np.testing.assert_array_equal(Squeeze().forward(squeezed[..., :2])[0], noise[1])


@pytest.mark.parametrize("level", [0, 1])
def test_resampling_a_level_keeps_the_others(level: int):
    noise = draw(0, 500)
    new = latents.resample_level(noise, level, jax.random.key(5), temperature=0.5)
    np.testing.assert_array_equal(new[1 - level], noise[1 - level])
    assert np.std(new[level]) == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(np.ravel(new[level]), np.ravel(noise[level]))[0, 1]) < 0.03


@pytest.mark.parametrize("level", [-1, 2])
def test_a_level_that_is_not_there_is_refused(level: int):
    with pytest.raises(GlowError, match="this noise has levels 0 to 1"):
        latents.resample_level(draw(0), level, jax.random.key(5))


# Many images


def test_encoding_in_batches_is_encoding(plain: Pair):
    model = plain.model
    x = np.asarray(images(model, 7))
    seen = []
    code = latents.encode_in_batches(model, x, batch_size=3, progress=seen.append)
    assert seen == [3, 3, 1]
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5),
        code,
        model.encode(x),
    )


# Nearest images


def test_nearest_are_those_of_a_search_by_hand():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 3, 4, 2), dtype=np.uint8)
    queries = rng.integers(0, 256, (5, 3, 4, 2), dtype=np.uint8)
    split = InMemory(images, np.empty((50, 0), np.int32))
    differences = queries[:, None].astype(float) - images
    distances = np.sqrt(np.sum(differences**2, axis=(2, 3, 4)))
    for batch_size in (7, 50):
        found = nearest(queries, split, count=3, batch_size=batch_size)
        np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :3])
        np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :3])


def test_an_image_is_nearest_to_itself_and_the_earlier_of_two_comes_first():
    images = np.full((9, 32, 32, 3), 255, np.uint8)
    images[[2, 7], 0, 0, 0] = 254  # the smallest difference there is, among the largest values
    split = InMemory(images, np.empty((9, 0), np.int32))
    found = nearest(images[[7]], split, count=3, batch_size=4)
    assert found.indices.tolist() == [[2, 7, 0]]
    assert found.distances.tolist() == [[0, 0, 1]]
