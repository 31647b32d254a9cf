"""Data sets of tensorflow-datasets: preparing them, and what can go wrong on the way.

Preparing takes TensorFlow, which the everyday tests do without: those that need it run where
`pip install -e '.[test,tfds]'` has brought it. `tests/prepared` holds what one of them prepares.
"""

import errno
import http.server
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
from photographs import load, sorted_images, squares, write_cifar10, write_svhn

from glow_jax.data import InMemory
from glow_jax.data.sources import tfds_prepare
from glow_jax.data.sources.tfds_child import prepare
from glow_jax.errors import GlowError

REPOSITORY = Path(__file__).resolve().parents[1]
# Where a user puts the archives of data sets by hand, with the repository as --dataroot.
FASHION = REPOSITORY / "downloads" / "manual" / "train-images-idx3-ubyte.gz"

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="pip install -e '.[test,tfds]'"
)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host answers, and TensorFlow is there."""
    monkeypatch.setattr(tfds_prepare, "_answers", lambda address: False)
    monkeypatch.setattr(tfds_prepare.importlib.util, "find_spec", lambda name: object())


# What is missing, and what to do


@pytest.mark.usefixtures("offline")
def test_without_a_network(tmp_path: Path):
    message = (
        r"cifar10 is not in .*, and www\.cs\.toronto\.edu cannot be reached .*: connect, or put "
        r"cifar-10-binary\.tar\.gz into .*manual; --preset digits needs no download\."
    )
    with pytest.raises(GlowError, match=message):
        load("cifar10", tmp_path)


def test_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tfds_prepare, "_answers", lambda address: True)
    monkeypatch.setattr(tfds_prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GlowError, match=r"takes TensorFlow: pip install 'glow-jax\[tfds\]'"):
        load("cifar10", tmp_path)


def test_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(GlowError, match="leave --no_download out"):
        load("cifar10", tmp_path, download=False)
    # Nothing is left there, where tensorflow-datasets leaves an empty folder each time.
    assert list(temporary.iterdir()) == []
    assert tempfile.gettempdir() == str(temporary)


def test_sources_that_are_gone_say_so_at_once(tmp_path: Path):
    with pytest.raises(GlowError, match=r"source is gone \(tensorflow/datasets issue 4662\)"):
        load("downsampled_imagenet", tmp_path, image_size=32)
    with pytest.raises(GlowError, match="cannot be opened any more"):
        load("lsun", tmp_path)
    with pytest.raises(GlowError, match=r"must be put into .*manual by hand"):
        load("celeb_a_hq", tmp_path)


def test_data_sets_without_pictures(tmp_path: Path):
    with pytest.raises(GlowError, match="no feature 'image'"):
        load("ag_news_subset", tmp_path)


def test_archives_put_there_by_hand_need_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
):
    write_cifar10(tmp_path / "downloads" / "manual")
    ran = []
    monkeypatch.setattr(tfds_prepare, "_run", lambda *arguments: ran.append(arguments[1:]))
    with pytest.raises(Exception):  # noqa: B017, PT011  (nothing was prepared)
        load("cifar10", tmp_path)
    assert ran == [("cifar10", str(tmp_path))]


def test_reachability_is_asked_of_the_host_itself():
    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/archive.tar.gz"
        assert tfds_prepare.unreachable_host([address]) == ""
        server.shutdown()
    assert tfds_prepare.unreachable_host([address]) == "127.0.0.1"


# Faults while preparing


def fake_builder(dataroot: Path, action: Callable[[], None]) -> Any:
    return SimpleNamespace(
        name="flowers",
        data_dir=str(dataroot / "flowers" / "1.0.0"),
        is_prepared=lambda: False,
        download_and_prepare=lambda **_: action(),
    )


class NonMatchingChecksumError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"disk of .* is full: make room"),
        (OSError("Not enough disk space. Needed: 1 GiB"), r"disk of .* is full: make room"),
        (RuntimeError("Write failed: No space left on device"), r"disk of .* is full"),
        (requests.ConnectionError("reset"), r"download of flowers broke off .*: run again\."),
        (PermissionError(13, "Permission denied", "/data"), "/data may not be written"),
        (EOFError("Compressed file ended"), "removed: run again to download it anew"),
    ],
)
def test_faults_are_one_sentence(tmp_path: Path, error: Exception, sentence: str):
    archive = tmp_path / "downloads" / "flowers" / "archive.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_text("half an archive")

    def fail() -> None:
        raise error

    with pytest.raises(GlowError, match=sentence) as raised:
        prepare(fake_builder(tmp_path, fail), str(tmp_path))
    assert "\n" not in str(raised.value)
    # Only an archive that cannot be read has to be downloaded again.
    assert archive.exists() != isinstance(error, EOFError)


def test_a_wrong_archive_is_named(tmp_path: Path):
    def fail(folder: Path) -> Callable[[], None]:
        def action() -> None:
            raise NonMatchingChecksumError(
                f"Artifact http://host/a.gz, downloaded to {folder}/a.gz, has wrong checksum:\n* .."
            )

        return action

    manual = tmp_path / "downloads" / "manual"
    with pytest.raises(GlowError, match=r"manual/a\.gz is not the file .*: replace or remove it"):
        prepare(fake_builder(tmp_path, fail(manual)), str(tmp_path))
    with pytest.raises(GlowError, match=r"a\.gz is not the file .*: run again"):
        prepare(fake_builder(tmp_path, fail(manual.parent / "flowers")), str(tmp_path))


def test_leftovers_of_an_interrupted_run_are_removed(tmp_path: Path):
    left = tmp_path / "flowers" / "incomplete.ABCDEF_1.0.0"
    download = tmp_path / "downloads" / "flowers" / "host_a.gz.tmp.0123"
    for folder in (left, download):
        folder.mkdir(parents=True)
    whole = download.parent / "host_b.gz"
    whole.write_text("whole")
    prepare(fake_builder(tmp_path, lambda: None), str(tmp_path))
    assert not left.exists()
    assert not download.exists()
    assert whole.exists()


@pytest.mark.parametrize(
    ("returncode", "stdout", "sentence"),
    [(2, "The disk is full.\n", "^The disk is full.$"), (-9, "", r"\(signal 9\): run again")],
)
def test_what_the_other_process_says(
    monkeypatch: pytest.MonkeyPatch, returncode: int, stdout: str, sentence: str
):
    done = subprocess.CompletedProcess([], returncode, stdout)
    monkeypatch.setattr(tfds_prepare.subprocess, "run", lambda *_, **__: done)
    builder: Any = SimpleNamespace(name="flowers", builder_config=None)
    with pytest.raises(GlowError, match=sentence):
        tfds_prepare._run(builder, "flowers", "data")


# Preparing, with TensorFlow


def prepare_offline(name: str, dataroot: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tests/photographs.py", name, str(dataroot)],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


@needs_tensorflow
def test_cifar10_is_prepared(tmp_path: Path):
    manual = tmp_path / "downloads" / "manual"
    write_cifar10(manual)
    archive = manual / "cifar-10-binary.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    done = prepare_offline("cifar10", tmp_path)
    assert done.returncode == 2
    assert "Preparing cifar10 failed" in done.stdout

    archive.write_bytes(whole)
    done = prepare_offline("cifar10", tmp_path)
    assert done.returncode == 0, done.stderr
    dataset = load("cifar10", tmp_path)
    assert isinstance(dataset.test, InMemory)
    np.testing.assert_array_equal(
        sorted_images(dataset.test), sorted_images(InMemory(squares(60, 32)[40:], np.zeros(20)))
    )


@needs_tensorflow
def test_svhn_is_prepared(tmp_path: Path):
    pytest.importorskip("scipy")
    write_svhn(tmp_path / "downloads" / "manual")
    done = prepare_offline("svhn_cropped", tmp_path)
    assert done.returncode == 0, done.stderr
    dataset = load("svhn", tmp_path)
    assert isinstance(dataset.train, InMemory)
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (30, 20, 10)
    assert (dataset.flips, dataset.shifts) == (False, True)
    archive = squares(30, 32, seed=30)
    for image, label in zip(dataset.train.images, dataset.train.labels, strict=True):
        (number,) = np.flatnonzero((archive == image).all(axis=(1, 2, 3)))
        # Labelled 1 to 10 in the archive, where 10 is the digit 0.
        assert label == (number % 10 + 1) % 10


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.skipif(not FASHION.exists(), reason=f"no {FASHION}")
def test_fashion_mnist_is_prepared_from_the_original_files(tmp_path: Path):
    shutil.copytree(FASHION.parent, tmp_path / "downloads" / "manual")
    dataset = load("fashion_mnist", tmp_path, image_size=32)
    assert isinstance(dataset.train, InMemory)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert dataset.image_shape == (32, 32, 1)
    assert np.bincount(dataset.train.labels).tolist() == [6_000] * 10
    assert dataset.train.images[:, :2].max() == 0
    assert "tensorflow" not in sys.modules
