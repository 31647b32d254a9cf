"""Machines of all kinds: no home, nothing to write to, closed pipes, x64, and odd flags."""

import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import error_of

import eval as eval_script
import sample as sample_script
import train as train_script
from glow_jax.cli import evaluate as evaluation
from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.evaluate import Arguments
from glow_jax.cli.flags import parse
from glow_jax.cli.training_flags import parse_training
from glow_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
from glow_jax.data import load_dataset
from glow_jax.devices import Devices, keep_compiled_programs
from glow_jax.errors import GlowError
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.files import expanded
from glow_jax.ood import store
from glow_jax.runs import load_run
from glow_jax.runs.measured import read_columns, write_columns
from glow_jax.training.progress import Progress, progress_of
from glow_jax.training.resolve import check_sizes

REPOSITORY = Path(__file__).parents[1]
SAVED = Path(__file__).parent / "data" / "run_version_1" / "run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAVED, tmp_path / "run"))


# Flags


def test_the_home_is_written_as_a_tilde_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(SAVED, tmp_path / "run")
    words = "--dataset folder:~/pics --dataroot ~/data --output_dir ~/out --saved_model ~/run"
    config = parse_training([*words.split(), "--saved_optimizer", "~/run"])
    assert config.data.dataset == f"folder:{tmp_path}/pics"
    assert config.data.dataroot == f"{tmp_path}/data"
    assert config.output.output_dir == f"{tmp_path}/out"
    assert config.training.saved_model == config.training.saved_optimizer == f"{tmp_path}/run"
    assert parse_training(["--dataset", "~/a.npz"]).data.dataset == f"{tmp_path}/a.npz"
    line = "~/run --ood folder:~/a ~/b.npz mnist~ --background ~/run"
    arguments = parse(Arguments, line.split())
    assert arguments.run == arguments.background == tmp_path / "run"
    assert arguments.ood == (f"folder:{tmp_path}/a", f"{tmp_path}/b.npz", "mnist~")


def test_without_a_home_nothing_is_kept_and_a_tilde_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_home(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("jax.config.update", pytest.fail)
    keep_compiled_programs()
    with pytest.raises(GlowError, match="output_dir is ~/x, but this user has no home folder"):
        parse_training(["--output_dir", "~/x"])


@pytest.mark.parametrize(
    ("dataset", "dataroot", "message"),
    [
        *[
            (name, "./", f"dataset is {path}, but the user nouser has no home folder")
            for name, path in (
                ("folder:~nouser/p", "~nouser/p"),
                ("~nouser/x.npz", "~nouser/x.npz"),
                ("~nouser/x.npy", "~nouser/x.npy"),
                ("~nouser/p.zip", "~nouser/p.zip"),
                ("~nouser", "~nouser"),
            )
        ],
        ("mnist", "~nouser", "dataroot is ~nouser, but the user nouser has no home folder"),
        ("folder:a\0b", "./", r"dataset is a\\x00b, which no path can be"),
        ("a\0b.npz", "./", "holds a null byte"),
        ("a\0b.zip", "./", "holds a null byte"),
        ("mnist", "\0", r"dataroot is \\x00, which no path can be"),
    ],
)
def test_a_path_of_a_run_that_is_none_is_one_sentence(
    dataset: str, dataroot: str, message: str
) -> None:
    data = DataConfig(dataset=dataset, dataroot=dataroot)
    for named_by_run in (True, False):
        with pytest.raises(GlowError, match=message):
            load_dataset(data, named_by_run=named_by_run)


def test_a_tilde_in_the_middle_of_a_path_is_no_home() -> None:
    for path in ("./~nouser", "a/~nouser", "mnist~"):
        assert expanded(path, "dataset") == Path(path)


@pytest.mark.parametrize("name", ["memory_limit", "picture_limit"])
@pytest.mark.parametrize("value", [1e308, float("inf"), float("nan"), -1.0])
def test_a_limit_is_a_number_that_a_machine_can_have(name: str, value: float) -> None:
    with pytest.raises(
        GlowError, match=rf"{name} is {re.escape(str(value))}; it must be .* 1000000"
    ):
        DataConfig(**{name: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (train_script.main, "--n_bits 0", "n_bits is 0; it must be from 1 to 8."),
        (train_script.main, "--eval_batch_size 0", "eval_batch_size is 0; it must be at least 1."),
        (train_script.main, "--dataset=", "--dataset is empty: give a value, or leave it out."),
        (train_script.main, "--output_dir=", "--output_dir is empty"),
        (train_script.main, f"--L {10**400}", "L is a number of more than 60 digits; it must be"),
        (train_script.main, f"--seed {10**20}", "seed is 100000000000000000000; it must be from 0"),
        (train_script.main, "--seed -1", "seed is -1; it must be from 0"),
        (eval_script.main, "RUN --eval_batch_size 0", "eval_batch_size is 0; it must be at"),
        (eval_script.main, "RUN --ood mnist --eval_batch_size 0", "eval_batch_size is 0"),
        (eval_script.main, "RUN --dataset=", "--dataset is empty"),
        (eval_script.main, "RUN --dataroot=", "--dataroot is empty"),
        (sample_script.main, f"RUN --seed {10**20}", "seed is 100000000000000000000; it must be"),
        (sample_script.main, f"RUN --num {10**11}", "num is 100000000000; it must be from 1 to"),
        (sample_script.main, "RUN --num 0", "num is 0; it must be from 1 to 10000."),
        (sample_script.main, "RUN --seed -1", "seed is -1; it must be from 0 to 4294967295."),
    ],
)
def test_no_value_silently_means_the_default(
    main, words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    line = words.replace("RUN", str(SAVED)).split()
    assert error_of(main, monkeypatch, capsys, *line).startswith(f"error: {message}")


def test_an_empty_name_is_no_data_set_of_the_run() -> None:
    with pytest.raises(GlowError):
        dataset_of(load_run(SAVED), "")


class AnyBatch(Devices):
    """Devices that share a batch of any size."""

    def check_batch_size(self, batch_size: int) -> None:
        pass


def test_an_actnorm_is_not_initialised_from_one_value() -> None:
    images = load_dataset(DataConfig(dataset="digits")).train

    def check(levels: int, n_init_batches: int) -> None:
        model = ModelConfig(L=levels, image_shape=(8, 8, 1))
        config = Config(
            model=model, training=TrainingConfig(batch_size=1, n_init_batches=n_init_batches)
        )
        check_sizes(config, images, images, AnyBatch())

    check(2, n_init_batches=1)
    check(3, n_init_batches=2)
    with pytest.raises(GlowError, match="level 3, of 1 x 1, cannot be initialised from one value"):
        check(3, n_init_batches=1)


# Files


def read_only(*_: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system", "/run/file")


def test_figures_are_printed_before_a_folder_turns_out_to_be_read_only(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    class Found:
        def to_json(self) -> dict[str, object]:
            return {}

    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: Found())
    monkeypatch.setattr(evaluation, "_text", lambda _: "bits/dim 3.1")
    monkeypatch.setattr(evaluation, "write_results", read_only)
    monkeypatch.setattr(sys, "argv", ["eval.py", str(run)])
    with pytest.raises(SystemExit) as status:
        eval_script.main()
    assert status.value.code == 2
    output = capsys.readouterr()
    assert output.out == "bits/dim 3.1\n"
    assert output.err == (
        "error: The figures above are printed, but not kept: /run/file cannot be written: "
        "Read-only file system.\n"
    )


def test_samples_that_cannot_be_kept_are_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(
        "glow_jax.cli.sample.sample_pixels", lambda *_, **__: np.zeros((1, 8, 8, 1))
    )
    monkeypatch.setattr("glow_jax.cli.sample.save_png", read_only)
    message = error_of(sample_script.main, monkeypatch, capsys, run, "--num", 1)
    assert message.endswith("cannot be used: Read-only file system; give --output another place.")


@pytest.mark.parametrize("output", [".", "", "/"])
def test_a_folder_is_no_place_for_samples(
    output: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    black = np.zeros((1, 8, 8, 1), np.uint8)
    monkeypatch.setattr("glow_jax.cli.sample.sample_pixels", lambda *_, **__: black)
    message = error_of(
        sample_script.main, monkeypatch, capsys, SAVED, "--num", 1, "--output", output
    )
    assert "cannot be used: Is a directory." in message


ORIGIN = {"step": 1}


def test_measured_numbers_damaged_in_any_way_are_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "measured.npz"
    write_columns(path, ORIGIN, {"bits": np.arange(5.0), "more": np.ones((5, 2), np.float32)})
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        columns = read_columns(path, ORIGIN)
        if columns:
            np.testing.assert_array_equal(columns["bits"], np.arange(5.0))
            assert set(columns) == {"bits", "more"}
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert read_columns(path, ORIGIN) == {}
    path.unlink()
    path.mkdir()
    assert read_columns(path, ORIGIN) == {}


@pytest.mark.parametrize(
    "columns",
    [
        {"place": np.array(1.0)},
        {"place": np.ones(2), "other": np.ones(3)},
        {"place": np.array(["a"])},
        {"place": np.ones(9999)},
        {},
    ],
)
def test_numbers_that_fit_no_images_are_measured_anew(columns, tmp_path: Path) -> None:
    path = tmp_path / "measured.npz"
    write_columns(path, ORIGIN, columns)
    split = load_dataset(DataConfig(dataset="digits")).test
    found = store.measure_all(
        split, lambda batch: {"place": batch.indices}, path=path, origin=ORIGIN, batch_size=100
    )
    np.testing.assert_array_equal(found["place"], np.arange(len(split)))


def test_numbers_that_cannot_be_kept_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("glow_jax.runs.measured.write_whole", read_only)
    write_columns(tmp_path / "x.npz", ORIGIN, {"place": np.ones(2)})
    assert "x.npz cannot be written: Read-only file system." in capsys.readouterr().err


@pytest.mark.parametrize(
    "noted",
    [
        {"epochs": "one"},
        {"skipped": 10**30},
        {"nothing": 1},
        {"epoch": 5},
        {"epoch": {"steps": -1}},
        {"epoch": {"seconds": {"reading": 1}}},
        {"epoch": {"seconds": [1]}},
        {"epoch": {"loss": None}},
    ],
)
def test_progress_that_is_none_is_one_sentence(noted: dict[str, object]) -> None:
    with pytest.raises(GlowError, match="progress of training is damaged"):
        progress_of(noted)
    assert progress_of(Progress().to_json()) == Progress()


# The process


def test_a_closed_pipe_ends_a_script_without_a_word() -> None:
    command = f"{sys.executable} train.py --help | head -n 1"
    done = subprocess.run(
        command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


SCRIPTS = ["train.py", "sample.py", "eval.py", "demo.py"]
SCRIPTS += [f"convert/{name}.py" for name in ("from_openai", "from_torch", "to_torch")]
SCRIPTS += ["convert/to_hub.py", "convert/from_hub.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_interruption_of_the_imports_is_one_line(script: str, tmp_path: Path) -> None:
    """Ctrl-C comes while JAX is imported, which nothing is imported before."""
    (tmp_path / "jax.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, script, "--help"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_interruption_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> None:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    monkeypatch.setattr("glow_jax.cli.train.main", main)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train_script.main()
    finally:
        signal.signal(signal.SIGINT, before)


def ended(script: Callable[[], None]) -> object:
    with pytest.raises(SystemExit) as stop:
        one_line_errors(script)()
    return stop.value.code


def fail() -> None:
    raise GlowError("This is wrong.")


@pytest.mark.parametrize(
    ("closed", "other", "name"),
    [("stdout", "stderr", "Standard output"), ("stderr", "stdout", "Standard error")],
)
def test_an_output_that_is_closed_is_one_sentence(
    closed: str, other: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, closed, None)
    monkeypatch.setattr(sys, other, said)
    assert ended(pytest.fail) == 2
    message = f"error: {name} is closed: redirect it to a file, or to /dev/null.\n"
    assert said.getvalue() == message
    monkeypatch.setattr(sys, other, None)
    assert ended(pytest.fail) == 2


@pytest.mark.parametrize(
    ("full", "other", "name"),
    [("stdout", "stderr", "Standard output"), ("stderr", "stdout", "Standard error")],
)
def test_an_output_that_is_full_is_one_sentence(
    full: str, other: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, other, said)
    for flush in (False, True):
        # Python buffers lines of errors, and blocks of output that is no terminal.
        with Path("/dev/full").open("w", 1 if full == "stderr" else -1) as stream:
            monkeypatch.setattr(sys, full, stream)
            script = partial(print, "x" * 9, file=stream, flush=flush)
            assert ended(script) == 2
    message = f"error: {name} cannot be written (No space left on device): redirect it to another "
    assert said.getvalue() == 2 * f"{message}place.\n"


def test_an_error_that_cannot_be_printed_as_one_is_printed_as_output(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert ended(fail) == 2
    assert capsys.readouterr().out == "error: This is wrong.\n"


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        (">&-", "error: Standard output is closed: redirect it to a file, or to /dev/null.\n"),
        pytest.param(
            *("2>&-", "error: Standard error is closed: redirect it to a file, or to /dev/null.\n"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ">/dev/full",
            "error: Standard output cannot be written (No space left on device): redirect it to "
            "another place.\n",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_script_whose_output_goes_nowhere_says_so(redirection: str, message: str) -> None:
    done = subprocess.run(
        f"{sys.executable} convert/to_torch.py --help {redirection}",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        shell=True,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout + done.stderr) == (2, message)


def test_x64_of_another_project_is_undone_and_said(capsys) -> None:
    jax.config.update("jax_enable_x64", True)
    try:
        one_line_errors(lambda: print(jnp.asarray(0.1).dtype))()
    finally:
        jax.config.update("jax_enable_x64", False)
    output = capsys.readouterr()
    assert output.out == "float32\n"
    assert output.err.startswith("warning: JAX_ENABLE_X64 is set")


@pytest.mark.parametrize("script", ["jax.numpy.ones(3)", "glow_jax.runs.load_run(sys.argv[1])"])
def test_a_platform_that_is_not_there_is_one_sentence(script: str) -> None:
    program = (
        "import sys, jax, glow_jax; from glow_jax.cli.errors import one_line_errors; "
        f"one_line_errors(lambda: {script})()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(SAVED)],
        env={**os.environ, "JAX_PLATFORMS": "no_such_device"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "error: JAX_PLATFORMS asks for no_such_device" in done.stderr
    assert "Traceback" not in done.stderr
