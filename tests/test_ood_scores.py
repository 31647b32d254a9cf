"""Scores against numbers worked out by hand, and the formats that measure complexity."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from ood_runs import GREY, untrained
from PIL import Image

from glow_jax.config import ModelConfig
from glow_jax.data.batching import Batch
from glow_jax.devices import Devices
from glow_jax.errors import GlowError
from glow_jax.ood import complexity, fitted, scores
from glow_jax.ood.complexity import CODECS, code_length, encode
from glow_jax.ood.measure import gradient_meter, likelihood_meter, replicated_model
from glow_jax.ood.metrics import detection
from glow_jax.ood.scores import choose_scores, score_table
from glow_jax.pixels import dequantize, example_keys

# The first 500 test images of Fashion-MNIST and of MNIST.
IMAGES = Path(__file__).parent / "data" / "garments_and_digits.npz"
D = 64


def random_images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def measured() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Five images, dequantised, and what is measured of them with a model that only rotates."""
    images = random_images((5, 8, 8, 1))
    indices = np.arange(5, dtype=np.uint32)
    flow = replicated_model(Devices(1), untrained(), step=0, dtype="float32", precision="highest")
    batch = Batch(images, np.empty((5, 0), np.float32), indices)
    columns: dict[str, np.ndarray] = {}
    for meter in (likelihood_meter(flow), gradient_meter(flow)):
        found = dict(meter.measure(batch, 5))
        assert set(found) == set(meter.gives)
        columns |= found
    x = np.asarray(dequantize(images, example_keys(0, 0, indices), n_bits=4), np.float64)
    return x.reshape(5, D), columns


def test_the_likelihood_is_the_flow_s(measured) -> None:
    x, columns = measured
    log_prob = -0.5 * np.sum(x**2, axis=1) - D / 2 * math.log(2 * math.pi)
    expected = log_prob / (D * math.log(2)) - 4
    score = scores.likelihood(columns["bits_per_dim"])
    np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)
    shares = [
        scores.level_likelihood(columns["level_bits_per_dim"], level=level) for level in (1, 2)
    ]
    np.testing.assert_allclose(sum(shares), score, rtol=0, atol=1e-6)
    assert np.ptp(shares[0]) > 1e-3


def test_the_gradient_norm_is_the_flow_s(measured) -> None:
    x, columns = measured
    expected = -np.linalg.norm(x, axis=1)  # the gradient of -|x|^2 / 2 is -x
    np.testing.assert_allclose(scores.gradient_norm(columns["gradient_norm"]), expected, rtol=1e-5)


def test_scores_by_hand() -> None:
    bits = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(fitted.typicality(bits, 2.5), [-1.5, -0.5, -1.5])
    np.testing.assert_allclose(scores.likelihood_ratio(bits, np.array([3.0, 1.0, 4.0])), [2, -1, 0])
    # S = bits of the flow - bits of the file; the score is -S.
    np.testing.assert_allclose(scores.complexity(bits, np.array([3.0, 3.0, 3.0])), [2, 1, -1])
    np.testing.assert_allclose(scores.compressibility(bits), -bits)
    # Two dimensions: log p is -2 ln 2 times bits; of 1 and 3 bits, its mean is -4 ln 2, and its
    # variance (2 ln 2)^2.
    ensemble = np.array([[3.0], [2.0], [np.inf]])
    ln2 = math.log(2)
    np.testing.assert_allclose(
        scores.waic(bits, ensemble, dimensions=2), [-4 * ln2 - 4 * ln2**2, -4 * ln2, np.nan]
    )


def test_the_table_names_every_score_with_its_paper() -> None:
    table = score_table(ModelConfig(**{**vars(GREY), "L": 3}))
    assert next(iter(table)) == "likelihood"
    assert [name for name in table if name.startswith("level")] == ["level_1", "level_2", "level_3"]
    assert all(name == row.name and "arXiv" in row.paper for name, row in table.items())
    levels = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(table["level_3"].function(levels), [-2, -5])


def test_scores_are_chosen() -> None:
    beside = choose_scores([], GREY, has_background=True, has_ensemble=True)
    everything = {row.name for row in beside}
    assert {"likelihood", "typicality", "likelihood_ratio", "waic", "dose_kde"} < everything
    assert "layer_norms" not in everything  # it is slow
    without = {row.name for row in choose_scores([], GREY)}
    assert everything - without == {"likelihood_ratio", "waic"}
    chosen = choose_scores(["png", "layer_norms", "likelihood"], GREY)
    assert [row.name for row in chosen] == ["likelihood", "layer_norms", "png"]


def test_scores_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, message: str) -> None:
        with pytest.raises(GlowError, match=message):
            choose_scores([name], GREY)

    refuse("energy", "There is no score 'energy'; there are likelihood, typicality, ")
    refuse("level_3", "There is no score 'level_3'")
    refuse("likelihood_ratio", "give the other's run folder as --background, or leave it out")
    refuse("waic", "give the other runs' folders as --ensemble, or leave it out")
    monkeypatch.setattr(complexity.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(complexity.features, "check", lambda name: False)
    refuse("complexity_jxl", r"needs lossless JPEG XL: pip install 'glow-jax\[jxl\]', or leave")
    refuse("webp", "needs lossless WebP: install a Pillow that was built with WebP")
    names = [row.name for row in choose_scores([], GREY)]
    assert [name for name in names if name in CODECS] == ["png"]


# Formats


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("channels", [1, 3])
def test_formats_are_lossless_and_grey_stays_grey(name: str, channels: int) -> None:
    codec = CODECS[name]
    if codec.version() is None:
        pytest.skip(codec.remedy)
    smooth = np.add.outer(np.arange(12), np.arange(8))[None, ..., None] * np.ones(channels)
    images = np.concatenate([random_images((2, 12, 8, channels)), smooth.astype(np.uint8)])
    for image in images:
        with Image.open(io.BytesIO(encode(image, codec))) as picture:
            picture.load()
            if name != "webp":  # which knows no grey, and predicts equal channels for nothing
                assert picture.mode == ("L" if channels == 1 else "RGB")
            pixels = np.asarray(picture)
        decoded = pixels[..., :1] if channels == 1 and pixels.ndim == 3 else pixels
        np.testing.assert_array_equal(decoded.reshape(image.shape), image)


def test_lengths_are_in_bits_per_dimension() -> None:
    images = random_images((3, 16, 16, 3))
    files = [len(encode(image, CODECS["png"])) for image in images]
    np.testing.assert_allclose(
        code_length(images, CODECS["png"]), [8 * size / (16 * 16 * 3) for size in files]
    )
    # Noise cannot be compressed: 8 bits/dim, and what the file's chunks take.
    assert 8 < files[0] * 8 / (16 * 16 * 3) < 10


def test_of_few_bits_only_those_are_compressed_that_the_model_sees() -> None:
    images = random_images((2, 16, 16, 1))
    coarse = images & 0xF0
    few = [code_length(pixels, CODECS["png"], n_bits=4) for pixels in (images, coarse)]
    np.testing.assert_array_equal(few[0], few[1])
    assert np.all(few[0] < code_length(images, CODECS["png"]) - 2)


def test_compression_alone_finds_digits_simpler_than_garments() -> None:
    # All 10,000 of each take 5.166 and 2.782 bits/dim; their AUROC is 0.0135.
    with np.load(IMAGES) as file:
        sets = (file[name][..., None] for name in ("garments", "digits"))
        inside, outside = (code_length(images, CODECS["png"]) for images in sets)
    assert inside.mean() == pytest.approx(5.170, abs=0.02)
    assert outside.mean() == pytest.approx(2.798, abs=0.02)
    # Shorter is taken for more in-distribution, as of a likelihood: worse than guessing by far.
    auroc = detection(
        scores.compressibility(inside), scores.compressibility(outside), resamples=100
    ).auroc
    assert auroc.value == pytest.approx(0.0140, abs=0.002)
    assert auroc.low < auroc.value < auroc.high
