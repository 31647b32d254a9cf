"""Run folders of strangers, or flipped, swapped and renamed: one sentence, and nothing outside."""

import hashlib
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Coroutine
from io import BufferedReader
from pathlib import Path
from types import SimpleNamespace

import pytest
from damaged_runs import new_model, refusal, step_of, three_steps
from training_runs import error_of

import glow_jax
import train as train_script
from glow_jax.hub import load
from glow_jax.runs import CheckpointWriter, load_run, whole_steps
from glow_jax.runs.digests import digests_of
from glow_jax.runs.folder import best_step
from glow_jax.runs.reading import verify


@pytest.fixture(scope="module")
def model() -> glow_jax.Glow:
    return new_model()


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return three_steps(tmp_path_factory, tmp_path / "run")


def outcome(run: Path) -> str:
    try:
        load(run)
    except glow_jax.GlowError as error:
        return str(error)
    return "loaded"


def flip(path: Path, place: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


# Links and pipes


@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        "hparams.json",
        "metrics.jsonl",
        "results.json",
        "tensorboard",
        "tracking.json",
        "export",
        "samples",
        "ood",
        "set_aside",
        "checkpoints",
        "checkpoints/6",
        "checkpoints/6/sha256.json",
        "ood/measured",
    ],
)
@pytest.mark.parametrize("dangling", [False, True])
def test_no_link_is_read_or_written_through(
    name: str,
    dangling: bool,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, outside = run / name, tmp_path / "outside"
    outside.mkdir()
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(outside / "target")
    elif not dangling:
        (outside / "target").write_text("precious")
    if dangling:
        (outside / "target").rename(tmp_path / "gone") if place.exists() else None
        outside = tmp_path / "nowhere"
    place.symlink_to(outside / "target")
    before = digests_of(outside) if outside.exists() else None
    words = ["--output_dir", run, "--resume", "--epochs", 2]
    message = error_of(train_script.main, monkeypatch, capsys, *words)
    assert message.startswith(f"error: {place} is a symbolic link")
    assert refusal(run).startswith(f"{place} is a symbolic link")
    assert before == (digests_of(outside) if outside.exists() else None)


def test_a_lock_that_is_a_link_is_refused_in_a_folder_that_is_else_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    words = ["--preset", "digits", "--output_dir", tmp_path / "run"]
    message = error_of(train_script.main, monkeypatch, capsys, *words)
    assert f"{tmp_path / 'run' / '.lock'} is a symbolic link" in message
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("name", ["hparams.json", "metrics.jsonl", "checkpoints/6/sha256.json"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, run: Path) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    assert refusal(run).startswith(f"{run / name} is no regular file")


def test_what_else_lies_in_the_folder_may_be_a_link(run: Path, tmp_path: Path) -> None:
    (run / "notes").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(run)
    assert load_run(tmp_path / "link").step == 7


# The choice of a step


def test_no_flip_in_what_decides_the_best_step_goes_unnoticed(run: Path) -> None:
    assert load_run(run, "best").step == 5
    for name in ("validation.json", "sha256.json"):
        path = step_of(run, 5) / name
        whole = path.read_bytes()
        places = range(len(whole)) if name == "validation.json" else range(0, len(whole), 41)
        for place in [*places, *range(whole.find(b'"validation.json"'), len(whole) - 2)]:
            if place >= len(whole):
                continue
            flip(path, place)
            with pytest.raises(glow_jax.GlowError) as error:
                # The digests of other files count when the step is read.
                verify(run, best_step(run) or 0, ())
            assert str(step_of(run, 5)) in str(error.value)
            path.write_bytes(whole)


@pytest.mark.parametrize(
    "content", ["[]", "{}", "null", "5", "[1]", '{"a": 1}', "[" * 100_000, '{"a": "b"}', ""]
)
def test_digests_that_are_none_are_named(content: str, run: Path) -> None:
    path = step_of(run, 7) / "sha256.json"
    path.write_text(content)
    assert f"Checkpoint file {path} is damaged" in refusal(run)
    assert f"Checkpoint file {path} is damaged" in refusal(run, "best")
    assert load_run(run, 6).step == 6


def test_a_missing_key_is_named(run: Path) -> None:
    path = step_of(run, 5) / "sha256.json"
    whole = json.loads(path.read_text())
    for name in whole:
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        which = "best" if name == "validation.json" else 5
        assert f"{path} " in refusal(run, which)


def test_a_step_that_may_be_the_best_is_never_removed(model: glow_jax.Glow, run: Path) -> None:
    flip(step_of(run, 5) / "validation.json", 20)
    with CheckpointWriter(run, keep_best=True) as writer:
        for step in (8, 9):
            writer.save(step, model, validation_bits_per_dim=4.0)
    assert whole_steps(run) == [5, 7, 8, 9]


def test_swapped_or_renamed_steps_are_named(run: Path) -> None:
    step_of(run, 6).rename(step_of(run, 60))
    assert "holds step 6" in refusal(run)
    assert "holds step 6" in refusal(run, "best")
    step_of(run, 5).rename(step_of(run, 6))
    step_of(run, 60).rename(step_of(run, 5))
    assert "checkpoints/5 holds step 6" in refusal(run, 5)
    assert "checkpoints/6 holds step 5" in refusal(run, 6)
    assert load_run(run).step == 7


@pytest.mark.parametrize("name", ["²", "٣", "007", "9" * 5000, "-1", "1e3", "last"])
def test_folders_whose_names_are_no_steps_are_left_alone(name: str, run: Path) -> None:
    try:
        shutil.copytree(step_of(run, 5), run / "checkpoints" / name)
    except OSError:
        return  # too long a name
    assert whole_steps(run) == [5, 6, 7]
    assert load_run(run).step == 7
    with CheckpointWriter(run, keep_best=True):
        pass
    assert (run / "checkpoints" / name).exists()


def test_what_orbax_cannot_read_is_one_sentence(run: Path) -> None:
    """Damage whose digests somebody made anew."""
    directory = step_of(run, 7)
    names = ["model/_METADATA", "progress/metadata", "_CHECKPOINT_METADATA", "model/manifest.ocdbt"]
    for name in names:
        path = directory / name
        whole, digests = path.read_bytes(), (directory / "sha256.json").read_bytes()
        for content in (b"", b"{}", b"null", b"[" * 100_000, whole[: len(whole) // 2], b"\xff" * 9):
            path.write_bytes(content)
            (directory / "sha256.json").unlink()
            (directory / "sha256.json").write_text(json.dumps(digests_of(directory)))
            message = outcome(run)
            assert "\n" not in message
            assert len(message) < 1000
        path.write_bytes(whole)
        (directory / "sha256.json").write_bytes(digests)
    load(run)


def sparse(path: Path, gigabytes: int) -> None:
    with path.open("ab") as file:
        file.truncate(gigabytes << 30)


@pytest.fixture
def few_bytes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads a large file fails at once, where it would take minutes."""
    real = hashlib.file_digest

    def file_digest(file: BufferedReader, kind: str) -> "hashlib._Hash":
        assert os.fstat(file.fileno()).st_size < 1 << 30
        return real(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", file_digest)


@pytest.mark.usefixtures("few_bytes_are_read")
def test_sizes_are_looked_at_before_a_file_is_read(run: Path) -> None:
    directory = step_of(run, 7)
    hidden, extra = directory / "model" / ".x", directory / "model" / "x"
    sparse(hidden, 60)
    assert load_run(run).step == 7
    sparse(extra, 60)
    assert f"{directory / 'sha256.json'} is damaged: it has no model/x" in refusal(run)
    extra.unlink()
    sparse(directory / "model" / "manifest.ocdbt", 60)
    assert f"{directory} has 64.4 GB of files, and no step of its model needs more" in refusal(run)
    assert refusal(run).endswith("give --step 5 or --step 6 to use another.")
    assert load_run(run, 6).step == 6


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"{}" + b" " * (16 << 20), "is larger than 16 MiB"),
        (b"[" * 100_000, "is not valid JSON: its brackets are too deep"),
        (b'{"epochs": ' + b"9" * 5000 + b"}", "holds a number of thousands of digits"),
    ],
    ids=["large", "deep", "digits"],
)
@pytest.mark.parametrize("name", ["progress/metadata", "model/_METADATA", "_CHECKPOINT_METADATA"])
def test_what_orbax_would_read_whole_is_looked_at_first(
    content: bytes, damage: str, name: str, run: Path
) -> None:
    directory = step_of(run, 7)
    (directory / name).write_bytes(content)
    (directory / "sha256.json").write_text(json.dumps(digests_of(directory)))
    assert refusal(run).startswith(f"Checkpoint file {directory / name} {damage}")
    assert "sys." not in refusal(run)


def test_only_reads_that_orbax_gave_up_end_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def coroutine_in(file: str) -> Coroutine:
        names: dict[str, Callable[[], Coroutine]] = {}
        exec(compile("async def read(): ...", file, "exec"), names)
        return names["read"]()

    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    sys.modules["glow_jax.runs.load"]._ignore_late_reads.__wrapped__()
    late = SimpleNamespace(exc_value=RuntimeError("Event loop is closed"), object=None)
    other = SimpleNamespace(exc_value=RuntimeError("Something else"), object=None)
    theirs, ours = coroutine_in("/lib/orbax/checkpoint/read.py"), coroutine_in("/home/me/read.py")
    in_theirs = SimpleNamespace(exc_value=Exception("a slice"), object=theirs)
    in_ours = SimpleNamespace(exc_value=Exception("a slice"), object=ours)
    for unraisable in (late, other, in_theirs, in_ours):
        sys.unraisablehook(unraisable)  # pyright: ignore[reportArgumentType]
    assert said == [other, in_ours]
    theirs.close()
    ours.close()


@pytest.mark.parametrize(
    ("error", "is_said"),
    [(ValueError('NOT_FOUND: Error opening "zarr" driver'), False), (ValueError("ours"), True)],
)
def test_a_task_that_orbax_gave_up_ends_without_a_word(
    error: ValueError,
    is_said: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    logger = logging.getLogger("asyncio")
    before = list(logger.filters)
    sys.modules["glow_jax.runs.load"]._ignore_late_reads.__wrapped__()
    logger.error("Task exception was never retrieved\nfuture: ...", exc_info=error)
    logger.filters[:] = before
    assert (caplog.text != "") == is_said


# A run that is being trained


@pytest.mark.slow
def test_a_run_loads_while_it_is_trained(model: glow_jax.Glow, run: Path) -> None:
    failures: list[BaseException] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            try:
                assert load_run(run).step >= 7
                assert load_run(run, "best").step == 5
            except BaseException as error:
                failures.append(error)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    with CheckpointWriter(run, keep_best=True) as writer:
        for step in range(8, 20):
            writer.save(step, model, validation_bits_per_dim=5.0)
    stop.set()
    thread.join()
    assert not failures


def test_a_step_that_is_removed_while_it_is_read_is_chosen_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = []

    def verify_late(folder: Path, step: int, arrays: object) -> None:
        if not gone:
            gone.append(step)
            shutil.rmtree(step_of(folder, step))
        verify(folder, step, arrays)

    monkeypatch.setattr(sys.modules["glow_jax.runs.load"], "verify", verify_late)
    assert load_run(run).step == 6
    assert gone == [7]
    assert "has no step 7" in refusal(run, 7)
