"""Images that are made, to be out of distribution."""

import numpy as np
import pytest

from glow_jax.data import InMemory
from glow_jax.errors import GlowError
from glow_jax.ood import synthetic
from glow_jax.ood.synthetic import KINDS, is_synthetic, make_images


def split_of(count: int = 12, shape: tuple[int, int, int] = (16, 16, 3)) -> InMemory:
    images = np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)
    return InMemory(images, np.empty((count, 0), np.int32))


def made(name: str, own: InMemory) -> np.ndarray:
    images = make_images(name, own)
    assert (images.name, images.part) == (name, "test")
    assert isinstance(images.split, InMemory)
    assert images.split.images.dtype == np.uint8
    return images.split.images


@pytest.mark.parametrize("name", [*KINDS, "noisy:8", "blurred:2.5"])
def test_images_are_always_the_same_and_of_the_run_s_shape(name: str) -> None:
    assert is_synthetic(name)
    own = split_of()
    images = made(name, own)
    assert images.shape[1:] == (16, 16, 3)
    assert len(images) == (1797 if name == "enlarged_digits" else 12)
    np.testing.assert_array_equal(images, made(name, own))
    if len(images) == len(own):
        assert (images != own.images).any(axis=(1, 2, 3)).all()


def test_what_the_kinds_are() -> None:
    own = split_of()
    x = own.images.astype(float)
    assert np.ptp(made("constant", own), axis=(1, 2)).max() == 0
    assert len(np.unique(made("constant", own)[:, 0, 0], axis=0)) == 12
    noise = made("noise", split_of(200)).astype(float)
    assert noise.mean() == pytest.approx(127.5, abs=1)
    assert noise.std() == pytest.approx(73.9, abs=1)  # of a uniform one: 256 / sqrt(12)
    np.testing.assert_array_equal(made("mirrored", own)[:, :, 0], x[:, :, -1])
    np.testing.assert_array_equal(made("upside_down", own)[:, 0], x[:, -1])
    np.testing.assert_array_equal(made("rotated", own)[:, -1, 0], x[:, 0, 0])
    grey = InMemory(np.full((50, 16, 16, 1), 128, np.uint8), np.empty((50, 0), np.int32))
    assert made("noisy", grey).std() == pytest.approx(32, rel=0.02)
    assert made("noisy:8", grey).std() == pytest.approx(8, rel=0.02)
    blurred = [made(name, own).astype(float).std() for name in ("blurred", "blurred:3")]
    assert x.std() / 2 > blurred[0] > 1.5 * blurred[1]
    np.testing.assert_allclose(
        made("blurred:3", own).mean(axis=(1, 2)), x.mean(axis=(1, 2)), atol=6
    )
    digits = made("enlarged_digits", split_of(shape=(24, 24, 3)))
    assert np.ptp(digits, axis=-1).max() == 0
    assert digits.max() == 255


def test_of_many_images_some_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_MOST_IMAGES", 5)
    monkeypatch.setattr(synthetic, "_BATCH", 2)
    own = split_of()
    images = made("mirrored", own)[:, :, ::-1]
    assert len(images) == 5
    assert all((own.images == image).all(axis=(1, 2, 3)).any() for image in images)


def test_what_cannot_be_made() -> None:
    wide, small = split_of(shape=(16, 8, 1)), split_of(shape=(8, 8, 1))
    with pytest.raises(GlowError, match="rotated turns squares; the run's images are 16 x 8"):
        make_images("rotated", wide)
    with pytest.raises(GlowError, match="enlarged_digits enlarges pictures of 8 x 8"):
        make_images("enlarged_digits", small)
    with pytest.raises(GlowError, match="mirrored:2: there is no strength to choose"):
        make_images("mirrored:2", small)
    for strength in ("0", "-1", "nan", "300", "much", ""):
        with pytest.raises(GlowError, match=f"noisy:{strength}: the strength is '{strength}'"):
            make_images(f"noisy:{strength}", small)
    assert not is_synthetic("mnist")
    assert not is_synthetic("noise.npz")
