"""Files under every name that openai/glow's README gives: which are converted, and which refused.

The published files are out of reach; these are small ones of the same kinds.
"""

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from openai_files import write_bundle, write_graph
from openai_models import architecture, settings, variables

from glow_jax import GlowError, ModelConfig
from glow_jax.bridge.from_openai import convert
from glow_jax.bridge.openai import levels_of

ABLATION = [
    (f"logs/abl-{permutation}-{coupling}.tar", permutation, coupling)
    for permutation in ("reverse", "shuffle", "1x1")
    for coupling in ("add", "aff")
]
LSUN = [f"logs/lsun-rnvp-{category}.tar" for category in ("bdr", "crh", "twr")]


def archive(path: Path, model: ModelConfig | None, **more: Any) -> Path:
    """A tar as the README offers it: logs, samples and, of a model, a checkpoint."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    (folder / "argv.txt").write_text("train.py\n")
    (folder / "epoch_1_sample.png").write_bytes(b"no picture")
    if model is not None:
        write_bundle(folder / "model_best_loss.ckpt", variables(model))
        stale = 'model_checkpoint_path: "/mnt/somewhere/model_best_loss.ckpt"\n'
        (folder / "checkpoint").write_text(stale)
        for name in ("train.txt", "test.txt"):
            lines = [settings(model, **more), {"epoch": 1}]
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with tarfile.open(path, "w") as tar:
        tar.add(folder, folder.name)
    return path


@pytest.mark.parametrize(("name", "permutation", "coupling"), ABLATION)
def test_the_ablation_on_cifar10(
    name: str, permutation: str, coupling: str, tmp_path: Path
) -> None:
    model = architecture(
        flow_permutation="invconv" if permutation == "1x1" else permutation,
        flow_coupling="additive" if coupling == "add" else "affine",
    )
    conversion = convert(archive(tmp_path / name, model, problem="cifar10"))
    assert conversion.config.model == model
    assert conversion.config.data.dataset == "cifar10"


@pytest.mark.parametrize("name", LSUN)
def test_lsun(name: str, tmp_path: Path) -> None:
    model = architecture(image_shape=(16, 16, 3))
    more = {"problem": "lsun_realnvp", "category": "bedroom"}
    conversion = convert(archive(tmp_path / name, model, **more))
    assert conversion.config.model == model
    assert conversion.config.data.dataset == "lsun/bedroom"


DATA = ("imagenet-oord", "lsun_realnvp", "celeba", "imagenet", "lsun")


@pytest.mark.parametrize("name", [f"data/{name}-tfr.tar" for name in DATA])
def test_images_are_no_checkpoint(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "train-r08-s-0000-of-0002.tfrecords").write_bytes(b"no record")
    path = tmp_path / name
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        tar.add(folder, folder.name)
    with pytest.raises(GlowError, match="holds no checkpoint of TensorFlow"):
        convert(path)


@pytest.mark.parametrize("name", ["logs/lsun-bdr-96.tar", "logs/lsun-bdr-128.tar"])
def test_logs_alone_hold_no_checkpoint(name: str, tmp_path: Path) -> None:
    with pytest.raises(GlowError, match="holds no checkpoint of TensorFlow"):
        convert(archive(tmp_path / name, None))


@pytest.mark.parametrize("name", ["large3/graph_unoptimized.pb", "large3/graph_optimized.pb"])
def test_a_graph_with_another_network_is_refused_by_a_variable_of_it(
    name: str, tmp_path: Path
) -> None:
    model = architecture(flow_coupling="additive", n_bits=5)
    (tmp_path / "large3").mkdir()
    path = tmp_path / name
    for other in ("model/cond/0/l_1/W", "cond/l_1/W", "model/cond/dense/kernel", "model/cond/w"):
        write_graph(path, variables(model) | {other: np.ones((3, 4), np.float32)})
        with pytest.raises(GlowError, match=f"'{other}' does not fit the model"):
            convert(path, image_size=8, n_bits=5)
    write_graph(path, variables(model))
    assert convert(path, image_size=8, n_bits=5).config.model == model


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "celeba-hq").mkdir()
    model = architecture()
    for name in ("z_manipulate.npy", "celeba-hq/x.npy", "celeba-hq/attr.npy", "celeba-hq/z.npy"):
        np.save(tmp_path / name, np.zeros((3, model.dimensions), np.float32))
    with zipfile.ZipFile(tmp_path / "blocksparse-1.0.0-py2.py3-none-any.whl", "w") as wheel:
        wheel.writestr("blocksparse/__init__.py", "raise SystemExit")
    (tmp_path / "shape_predictor_68_face_landmarks.dat").write_bytes(b"\x01\x04" * 900)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 6
    for path in files:
        with pytest.raises(GlowError, match="is no file of openai/glow"):
            convert(path)
    directions = np.load(tmp_path / "z_manipulate.npy")
    assert [level.shape for level in levels_of(directions, model)] == [
        (3, *shape) for shape in model.latent_shapes
    ]
