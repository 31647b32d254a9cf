"""The commands of the documentation, and how each is parsed without being run."""

import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from glow_jax.cli.flags import parse
from glow_jax.cli.program import COMMANDS
from glow_jax.cli.training_flags import parse_training
from glow_jax.commands import SCRIPTS
from tests.fuzz.__main__ import command_line

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "models").glob("**/README.md")),
    REPOSITORY / "spaces" / "README.md",
]
FORMS = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
EXTRAS: Mapping[str, Sequence[str]] = PYPROJECT["project"]["optional-dependencies"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(
    r"`((?:cp|env|glow-jax|pip|pre-commit|pytest|python|srun|tensorboard|tox) [^`]+)`"
)
# Commands of others, by their first word, and what they may be given beside files.
OTHERS = {
    "cp": {"-rL"},
    "pre-commit": {"install"},
    "tensorboard": {"--logdir"},
}
# Modules of Python itself that are called by their names.
MODULES = {"platform"}
# The options of pytest that take a value.
PYTEST = {"-m", "-n", "--figures"}
REQUIREMENT = re.compile(r"(?P<name>[\w.-]*[\w.])(\[(?P<extras>[\w,-]+)\])?([<>=~!].*)?")


def blocks(text: str, language: str) -> Iterator[str]:
    """The fenced blocks in a language."""
    for found in FENCED.finditer(text):
        if found[1] == language:
            yield found[2]


def text_of(page: Path) -> str:
    """A page in Markdown, or what an issue form says and proposes to write."""
    if page not in FORMS:
        return page.read_text()
    parts: list[str] = []
    for field in yaml.safe_load(page.read_text()).get("body", []):
        said = field["attributes"]
        parts += [said.get("description", ""), f"`{said.get('placeholder', '')}`"]
    return "\n".join(parts)


def lines(page: Path) -> Iterator[str]:
    """Every command of a page, in blocks and in sentences, one a line."""
    text = text_of(page)
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip():
                yield line
    for found in INLINE.finditer(FENCED.sub("", text)):
        yield " ".join(found[1].split())


def commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without what sets the environment."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), "&&"]:
        if word == "&&":
            if words:
                yield list(_alone(words))
            words = []
        else:
            words.append(word)


def _alone(words: Sequence[str]) -> Sequence[str]:
    """A command without settings of its environment, `srun` with its flags, and an ellipsis."""
    if words[0] in ("srun", "env"):
        ours = (n for n, word in enumerate(words) if word in ("python", "glow-jax"))
        words = words[next(ours, len(words)) :]
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return words[:-1] if words and words[-1] == "..." else words


def check(words: Sequence[str]) -> None:
    """Raise unless a command is one of ours with flags that it has, or a known one of others."""
    if not words:
        return
    if words[0] == "glow-jax":
        _check_ours(words[1:])
    elif words[0] == "python" and words[1] == "-m":
        _check_module(words[2], words[3:])
    elif words[0] == "python":
        _check_script(words[1], words[2:])
    elif words[0] == "pytest":
        _check_tests(words[1:])
    elif words[0] == "pip":
        _check_packages(words[1], words[2:])
    elif words[0] == "tox":
        run, flag, environment = words[1:]
        assert (run, flag) == ("run", "-e"), words
        assert environment in PYPROJECT["tool"]["tox"]["env_list"], words
    elif words[0] == ".ci/run":
        assert (REPOSITORY / words[0]).exists()
        assert len(words) == 1
    else:
        known = OTHERS[words[0]]
        assert {word for word in words[1:] if word.startswith("-")} <= known, words
        assert known & set(words), words


def _check_module(module: str, arguments: Sequence[str]) -> None:
    if module == "tests.fuzz":
        command_line().parse_args(arguments)
    elif module == "glow_jax":
        if arguments:
            _check_ours(arguments)
    else:
        assert module in MODULES, module
        assert not arguments, arguments


def _check_packages(task: str, words: Sequence[str]) -> None:
    """A package that pip is asked for is this one, with extras that it has, or one it can need."""
    if task == "list":
        assert not words, words
        return
    assert task == "install", task
    needed = [*PYPROJECT["project"]["dependencies"], *(one for of in EXTRAS.values() for one in of)]
    others = {found["name"] for found in map(REQUIREMENT.match, needed) if found}
    wanted = [word for word in words if word != "-e"]
    assert wanted, words
    for word in wanted:
        if re.fullmatch(r"glow_jax-\S+\.whl", word):
            continue
        found = REQUIREMENT.fullmatch(word)
        assert found is not None, word
        assert found["name"] in {*others, ".", "glow-jax"}, word
        if found["name"] in (".", "glow-jax"):
            assert set((found["extras"] or "").split(",")) <= {*EXTRAS, ""}, word


def _check_script(script: str, arguments: Sequence[str]) -> None:
    assert (REPOSITORY / script).is_file(), script
    names: Mapping[str, str] = {place: name for name, place in SCRIPTS.items()}
    if script in names and arguments:  # else a sentence names the command alone
        _parse(COMMANDS[names[script]].module, arguments)
    elif script in names:
        return
    elif script == "models/prepare.py":
        parse(module_of(script).Arguments, arguments)
    elif script == "docs/tables.py":
        assert set(arguments) <= {"--check"}
    elif script == "docs/demo/screenshots.py":
        assert len(arguments) == 1  # the page's address
    elif script.startswith("benchmarks/"):
        module = importlib.import_module(Path(script).stem)
        parse(module.Arguments, arguments)
    else:
        assert not arguments, script


def module_of(script: str) -> Any:
    """A script that is no module, imported."""
    place = importlib.util.spec_from_file_location(Path(script).stem, REPOSITORY / script)
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    sys.modules[module.__name__] = module  # as its dataclass needs
    place.loader.exec_module(module)
    return module


def _check_ours(words: Sequence[str]) -> None:
    if words[0].startswith("-"):
        assert set(words) <= {"--help", "--version"}
        return
    size = 2 if words[0] == "convert" else 1
    name = " ".join(words[:size]).replace("_", "-")
    if len(words) == size:  # a sentence that names the command alone
        assert name in COMMANDS, words
        return
    _parse(COMMANDS[name].module, words[size:])


def _parse(module: str, arguments: Sequence[str]) -> None:
    given = [word for word in arguments if word != "--help"]
    if "--help" in arguments and not given:  # it may need a run otherwise
        return
    arguments = given
    if module == "train":
        parse_training(arguments)
    else:
        parse(importlib.import_module(f"glow_jax.cli.{module}").Arguments, arguments)


def _check_tests(arguments: Sequence[str]) -> None:
    """Pytest's options are known, and the files are there; a star stands for at least one."""
    words = iter(arguments)
    for word in words:
        if word in PYTEST:
            value = next(words)
            assert word != "-m" or set(re.findall(r"\w+", value)) <= {"slow", "or", "not"}, value
            assert word != "-n" or value.isdigit(), value
        else:
            assert word.startswith("tests/"), word
            assert list(REPOSITORY.glob(word)), word
