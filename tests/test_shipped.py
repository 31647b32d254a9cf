"""The model in `models/` opens, is what its files say, and shows the published finding."""

import gzip
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from sklearn.metrics import roc_auc_score

import glow_jax
from glow_jax.config import to_json
from glow_jax.config.presets import PRESETS
from glow_jax.evaluation.likelihood import EVALUATION_SEED
from glow_jax.runs import load_run

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL = REPOSITORY / "models" / "fashion_mnist"
SHARED = REPOSITORY.parent / "shared" / "data"
IMAGES = 500


@pytest.fixture(scope="module")
def model() -> glow_jax.Glow:
    return glow_jax.load(MODEL)


def test_it_is_what_its_files_say(model: glow_jax.Glow) -> None:
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert parameters < 5e6
    run, results = load_run(MODEL), json.loads((MODEL / "results.json").read_text())
    curve = [json.loads(line) for line in (MODEL / "metrics.jsonl").read_text().splitlines()]
    assert run.step == results["step"] == curve[-1]["step"]
    assert results["images"] == 10_000
    assert results["bits_per_dim"] == pytest.approx(curve[-1]["test_bits_per_dim"], abs=1e-4)
    preset = to_json(PRESETS["fashion_mnist-small"])
    for section in ("model", "optimizer", "training"):
        differing = {
            name
            for name, value in to_json(run.config)[section].items()
            if value != preset[section][name]
        }
        assert differing <= {"seed"}, section


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_it_finds_digits_likelier_than_garments(model: glow_jax.Glow) -> None:
    archive = SHARED / "fashion_mnist" / "t10k-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(archive.read_bytes()), np.uint8, offset=16)
    garments = pixels.reshape(-1, 28, 28, 1)[:IMAGES]
    digits = np.load(SHARED / "mnist10k.npz")["images"].reshape(-1, 28, 28, 1)[:IMAGES]

    def bits(images: np.ndarray) -> np.ndarray:
        x = glow_jax.dequantize(images, jax.random.key(EVALUATION_SEED))
        log_prob = model.log_prob(x)
        return np.asarray(glow_jax.bits_per_dim(log_prob, model.config.image_shape))

    inside, outside = bits(garments), bits(digits)
    expected = json.loads((MODEL / "results.json").read_text())["bits_per_dim"]
    # The standard error of the mean of 500 images is 0.03.
    assert inside.mean() == pytest.approx(expected, abs=0.12)
    auroc = roc_auc_score(np.repeat([1, 0], IMAGES), -np.concatenate([inside, outside]))
    assert auroc < 0.4
