"""The notebooks: they run top to bottom, and what is kept of them came of that."""

import gzip
import re
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from flax import nnx
from photographs import squares
from PIL import Image

from glow_jax import Config, Glow, ModelConfig
from glow_jax.runs import save_weights
from notebooks.execute import execute

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
SHIPPED = REPOSITORY / "models" / "fashion_mnist"
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
SIZE = 16
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def write_pictures(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """PNG files in a folder for each class: (N, H, W), (N,)."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number:05d}.png")


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


def shown(notebook: nbformat.NotebookNode) -> str:
    """Everything a reader sees but the pictures."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not any(output.output_type == "error" for output in outputs)
    texts = [
        str(output.get("text", output.get("data", {}).get("text/plain"))) for output in outputs
    ]
    return "\n".join([*texts, *(cell.source for cell in notebook.cells)])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Squares of photographs under the names of both data sets, and a model of their size."""
    root = tmp_path_factory.mktemp("notebooks")
    grey = squares(320, SIZE).mean(axis=-1).astype(np.uint8)
    for name, part in (("fashion_mnist", grey[:200]), ("mnist", grey[200:])):
        labels = np.arange(len(part)) % 10
        write_pictures(root / name / "train", part[:40], labels[:40])
        write_pictures(root / name / "test", part[40:], labels[40:])
    config = ModelConfig(K=1, L=3, hidden_channels=4, image_shape=(SIZE, SIZE, 1))
    save_weights(root / "run", Config(model=config), Glow(config, rngs=nnx.Rngs(0)))
    return {
        "GLOW_RUN": str(root / "run"),
        "GLOW_DATAROOT": str(root),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
    }


@each_notebook
def test_every_cell_runs(path: Path, tiny: dict[str, str]):
    done = execute(path, **tiny)
    kept = nbformat.read(path, as_version=4)
    assert pictures(done) == pictures(kept)
    assert "K = 1, L = 3" in shown(done)


@each_notebook
def test_what_is_kept_came_of_one_run_from_top_to_bottom(path: Path):
    kept = nbformat.read(path, as_version=4)
    nbformat.validate(kept)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(kept) > 1
    # No warnings or bars, which go to stderr, and nothing that is true of one machine only.
    assert "stderr" not in {output.get("name") for cell in code for output in cell.outputs}
    assert not re.search(r"/(home|root|tmp|work|Users|private|var)/", shown(kept))


def idx(name: str, values: slice) -> np.ndarray:
    """An array of the original archives, in which a header of 16 or 8 bytes comes first."""
    data = gzip.decompress((SHARED / "fashion_mnist" / f"{name}-ubyte.gz").read_bytes())
    if "labels" in name:
        return np.frombuffer(data, np.uint8, offset=8)[values]
    return np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28)[values]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no shipped model")
def test_the_shipped_model_does_it_within_five_minutes(tmp_path: Path):
    side = int(re.findall(r'"image_shape": \[\s*(\d+)', (SHIPPED / "hparams.json").read_text())[0])
    margin = (side - 28) // 2
    frame = ((0, 0), (margin, margin), (margin, margin))
    for split, name, count in (("train", "train", 6000), ("test", "t10k", 2000)):
        images = idx(f"{name}-images-idx3", slice(count))
        labels = idx(f"{name}-labels-idx1", slice(count))
        write_pictures(tmp_path / "fashion_mnist" / split, np.pad(images, frame), labels)
    digits = np.load(SHARED / "mnist10k.npz")
    for split, part in (("train", slice(200)), ("test", slice(2000))):
        write_pictures(
            tmp_path / "mnist" / split,
            np.pad(digits["images"][part], frame),
            digits["labels"][part],
        )
    start = time.monotonic()
    shown_by = {path.stem: shown(execute(path, GLOW_DATAROOT=str(tmp_path))) for path in NOTEBOOKS}
    assert time.monotonic() - start < 300
    (auroc,) = re.findall(r"^AUROC (0\.\d+)$", shown_by["out_of_distribution"], re.MULTILINE)
    assert float(auroc) < 0.4  # the published finding
    (error,) = re.findall(r"largest error of 100 images: (\S+) of", shown_by["sampling"])
    assert float(error) < 0.1
