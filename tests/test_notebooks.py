"""The notebooks: they run top to bottom, and what is kept of them came of that."""

import re
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from ood_runs import untrained
from photographs import squares
from PIL import Image

from glow_jax import Config, ModelConfig
from glow_jax.runs import save_weights
from notebooks.execute import execute

REPOSITORY = Path(__file__).resolve().parents[1]
# The first 500 test images of Fashion-MNIST and of MNIST.
IMAGES = Path(__file__).parent / "data" / "garments_and_digits.npz"
SHIPPED = REPOSITORY / "models" / "fashion_mnist"
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
SIZE = 8
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
    config = ModelConfig(K=1, L=2, hidden_channels=4, image_shape=(SIZE, SIZE, 1))
    save_weights(root / "run", Config(model=config), untrained(config))
    return {
        "GLOW_RUN": str(root / "run"),
        "GLOW_DATAROOT": str(root),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "JAX_COMPILATION_CACHE_DIR": str(root / "compiled"),
    }


@pytest.mark.slow
@each_notebook
def test_every_cell_runs(path: Path, tiny: dict[str, str]):
    done = execute(path, **tiny)
    kept = nbformat.read(path, as_version=4)
    assert pictures(done) == pictures(kept)
    assert "K = 1, L = 2" in shown(done)


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


@pytest.mark.slow
def test_the_shipped_model_does_it_within_five_minutes(tmp_path: Path):
    side = int(re.findall(r'"image_shape": \[\s*(\d+)', (SHIPPED / "config.json").read_text())[0])
    margin = (side - 28) // 2
    frame = ((0, 0), (margin, margin), (margin, margin))
    with np.load(IMAGES) as file:
        sets = {"fashion_mnist": file["garments"], "mnist": file["digits"]}
    for name, images in sets.items():
        for split, part in (("train", slice(300)), ("test", slice(300, None))):
            framed = np.pad(images[part], frame)
            write_pictures(tmp_path / name / split, framed, np.arange(len(framed)) % 10)
    start = time.monotonic()
    shown_by = {path.stem: shown(execute(path, GLOW_DATAROOT=str(tmp_path))) for path in NOTEBOOKS}
    assert time.monotonic() - start < 300
    (auroc,) = re.findall(r"^AUROC (0\.\d+)$", shown_by["out_of_distribution"], re.MULTILINE)
    assert float(auroc) < 0.4  # the published finding
    (error,) = re.findall(r"largest error of 100 images: (\S+) of", shown_by["sampling"])
    assert float(error) < 0.1
