"""`glow-jax COMMAND`: the scripts as one program, and what it tells its user to call."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from training_runs import TINY, run_script

import glow_jax
from glow_jax import commands
from glow_jax.cli import program
from glow_jax.commands import SCRIPTS, command
from glow_jax.runs import load_run

REPOSITORY = Path(__file__).resolve().parents[1]


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> object:
    """The status with which a command line ends."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/glow-jax", *map(str, words)])
    try:
        program.main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def test_every_script_is_a_command() -> None:
    scripts = {path.name for path in REPOSITORY.glob("*.py")} - {"setup.py"}
    scripts |= {f"convert/{path.name}" for path in REPOSITORY.glob("convert/*.py")}
    assert set(SCRIPTS.values()) == scripts
    assert all((REPOSITORY / script).is_file() for script in SCRIPTS.values())
    assert [name for name in program.COMMANDS if name in SCRIPTS] == list(SCRIPTS)
    for name, script in SCRIPTS.items():
        module = program.COMMANDS[name].module
        assert f'start("{module}")' in (REPOSITORY / script).read_text()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_help_lists_the_commands(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in program.COMMANDS)


@pytest.mark.parametrize("words", [["convert"], ["convert", "--help"], ["convert", "-h"]])
def test_the_help_of_a_group_lists_its_commands(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: glow-jax convert COMMAND ...\n")
    listed = [line.split()[0] for line in said.splitlines() if line.startswith("  ")]
    names = [name.partition(" ") for name in program.COMMANDS]
    assert listed == [name for group, _, name in names if group == "convert"]
    assert "\nglow-jax convert COMMAND --help lists" in said


@pytest.mark.parametrize("name", program.COMMANDS)
def test_a_command_has_flags(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *name.replace("-", "_").split(), "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: glow-jax {name} ")


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert glow_jax.__version__ == importlib.metadata.version("glow-jax") == project["version"]
    assert "__version__" in dir(glow_jax)
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"glow-jax {glow_jax.__version__}\n"


def test_what_is_not_installed_has_no_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert not hasattr(glow_jax, "__version__")
    assert call(monkeypatch, "--version") == 2
    said = capsys.readouterr().err
    assert said == "error: glow-jax is not installed here, so it has no version; pip install it.\n"


def test_python_runs_the_package_as_the_program() -> None:
    for words, status in ([], 0), (["convert"], 0), (["tain"], 2):
        command = [sys.executable, "-m", "glow_jax", *words]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == status
        assert "glow-jax" in (done.stderr if status else done.stdout).splitlines()[0]


@pytest.mark.parametrize("words", [["tain"], ["convert", "torch", "x"], ["\n"]])
def test_another_word_is_one_sentence(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "glow-jax --help" in said


def test_errors_of_a_command_are_those_of_its_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "sample", "nowhere") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_what_the_user_should_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert command("convert to-torch") == "python convert/to_torch.py"
    monkeypatch.setattr(sys, "argv", ["glow-jax train"])
    assert command("train") == "glow-jax train"
    # Of an installed package there are no scripts.
    monkeypatch.setattr(sys, "argv", ["notebook"])
    monkeypatch.setattr(commands, "__file__", str(tmp_path / "glow_jax" / "commands.py"))
    assert command("eval") == "glow-jax eval"


@pytest.mark.slow
def test_training_by_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train", *TINY, "--epochs", "1", "--output_dir", tmp_path / "run")
    run_script(program.main, monkeypatch, *words)
    assert load_run(tmp_path / "run").step == 20


def test_help_ends_without_a_word_where_its_reader_has_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "glow_jax", "convert"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
