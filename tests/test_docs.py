"""The README and the documentation: their tables, numbers, commands, code and links."""

import ast
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_claims import CLAIMS
from docs_commands import (
    FORMS,
    PAGES,
    PYPROJECT,
    blocks,
    check,
    commands,
    lines,
    module_of,
    text_of,
)
from flax import nnx

from glow_jax.cli import training_flags
from glow_jax.config import Config
from glow_jax.config.presets import PRESETS
from glow_jax.model import Glow
from glow_jax.runs import save_weights

REPOSITORY = Path(__file__).resolve().parents[1]
TEXTS = [*PAGES, REPOSITORY / "CHANGELOG.md"]


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


each_page = pytest.mark.parametrize("page", [*PAGES, *FORMS], ids=name_of)
# Of extras that the tests do not need otherwise.
OF_EXTRAS = {"onnxruntime", "torch"}
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of benchmarks/ import each other by their own names."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    monkeypatch.delitem(sys.modules, "parity", raising=False)  # the tests have one, too


def module(name: str) -> Any:
    return importlib.import_module(name)


def test_tables_are_what_their_files_give() -> None:
    assert module("pages").old() == []


def test_every_table_has_a_place_and_no_other_is_marked() -> None:
    marked = [
        found[2] for page in PAGES for found in module("pages").PLACE.finditer(page.read_text())
    ]
    assert sorted(marked) == sorted(module("pages").TABLES)


def test_groups_of_the_table_are_those_of_the_labels() -> None:
    prepared = module_of("models/prepare.py")
    assert tuple(prepared.GROUPS) == module("shipped").GROUPS


def test_an_old_table_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: presets -->\n| typed |\n<!-- end -->\n")
    pages = module("pages")
    monkeypatch.setattr(pages, "pages", lambda: [page])
    assert pages.old() == [page]
    page.write_text(pages.filled(page.read_text()))
    assert pages.old() == []
    assert "`digits`" in page.read_text()


@pytest.mark.parametrize(
    ("fastest", "name"),
    [
        ("torch", "this project's reference in PyTorch"),
        ("torch_layers", "PyTorch layer by layer"),
        ("torch_compiled", "`torch.compile`"),
    ],
)
def test_speeds_stand_beside_the_fastest_of_pytorch(
    fastest: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = module("results")
    found = module("figures").read("speed.json")
    for row in found["rows"]:
        del row["rates"]["torch_layers" if fastest == "torch" else "torch"]  # it may have failed
        row["rates"][fastest] = [999.94] * len(row["rates"]["jax"])
    read = results.read
    monkeypatch.setattr(results, "read", lambda name: found if name == "speed.json" else read(name))
    said = results.table()
    assert said.count(f"| 999.9 by {name} |") == 2
    assert said.count("** with `--memory fast` |") == 1
    assert "with huge pages for both" in said
    found["arguments"]["huge_pages"] = False
    assert "huge pages" not in results.table()


def test_scaling_is_what_its_command_computes() -> None:
    scaling = module("scaling")
    assert scaling.predict(scaling.Assumptions()) == module("figures").read("scaling.json")


@pytest.mark.parametrize("name", CLAIMS)
def test_numbers_in_sentences_are_what_their_files_give(name: str) -> None:
    text = " ".join((REPOSITORY / name).read_text().split())
    missing = [sentence for sentence in CLAIMS[name]() if sentence not in text]
    assert missing == []


def test_the_limits_of_the_parts_for_a_gpu() -> None:
    text = (REPOSITORY / "docs" / "gpu.md").read_text()
    assert module("accelerator").Arguments().minutes == 10
    for name, (_, seconds) in module("accelerator_parts").PARTS.items():
        limit = "what is left" if name == "speed" else f"{seconds:g}"
        assert re.search(rf"^\| `{name}` \|.*\| {limit} \|$", text, re.MULTILINE), name


def test_every_data_set_and_preset_is_in_the_readme() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert all(f"`{name}`" in text for name in PRESETS)


def test_every_python_that_is_claimed_is_tested() -> None:
    start = "Programming Language :: Python :: 3."
    named = [line for line in PYPROJECT["project"]["classifiers"] if line.startswith(start)]
    versions = [line.rpartition(" ")[2] for line in named]
    assert PYPROJECT["tool"]["tox"]["env_list"] == versions
    assert PYPROJECT["project"]["requires-python"] == f">={versions[0]}"
    oldest, newer = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())[
        "jobs"
    ].values()
    assert oldest["steps"][1]["with"]["python-version"] == versions[0]
    assert newer["strategy"]["matrix"]["python"] == versions[1:]
    for page in ("README.md", "docs/getting_started.md"):
        said = f"Python {versions[0]} to {versions[-1]} on Linux"
        assert said in (REPOSITORY / page).read_text()


@pytest.fixture
def saved_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run folder that a command names is there, with the settings of a new run."""
    for place in (training_flags, training_flags.hub):
        monkeypatch.setattr(place, "read_config", lambda _: Config())


@each_page
def test_commands_have_the_flags_they_are_given(page: Path, saved_runs: None) -> None:
    for line in lines(page):
        for words in commands(line):
            check(words)


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --no_such_flag",
        "python train.py --preset no_such_preset",
        "python benchmarks/no_such.py",
        "python eval.py runs/a --no_such_flag",
        "glow-jax no_such runs/a",
        "glow-jax train --help --no_such_flag",
        "glow-jax eval --no_such_flag --help",
        "python -m no_such",
        "python -m glow_jax no_such",
        "pytest tests/no_such.py",
        "pytest --no_such_flag",
        "pytest -m slwo",
        "pytest -n many",
        "pip install 'glow-jax[no_such]'",
        "pip install -e '.[torch,no_such]'",
        "pip install no_such",
        "pip instal .",
        "tox run -e 9.9",
        "tensorboard --logdri runs",
        "pre-commit instal",
        "no_such_program",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises((Exception, SystemExit)):
        check(next(commands(line)))


@each_page
def test_python_compiles_and_its_imports_are_there(page: Path) -> None:
    for block in blocks(text_of(page), "python"):
        compile(block, str(page), "exec")
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for name in node.names:
                    if name.name in OF_EXTRAS:
                        pytest.importorskip(name.name)
                    importlib.import_module(name.name)
            elif isinstance(node, ast.ImportFrom):
                if str(node.module).startswith("glow_jax.bridge"):
                    pytest.importorskip("torch")
                found = importlib.import_module(str(node.module))
                assert all(hasattr(found, name.name) for name in node.names)


def small_digits() -> Config:
    model = {"K": 1, "hidden_channels": 4, "image_shape": (8, 8, 1)}
    digits = PRESETS["digits"]
    return Config(
        model=type(digits.model)(**{**vars(digits.model), **model}),
        data=digits.data,
        training=digits.training,
    )


@pytest.mark.parametrize("name", ["README.md", "docs/getting_started.md"])
def test_python_about_digits_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_digits()
    model = Glow(config.model, rngs=nnx.Rngs(0))
    save_weights(tmp_path / "runs" / "digits", config, model)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks((REPOSITORY / name).read_text(), "python"):
        exec(compile(block, name, "exec"), names)
    assert names["pixels"].shape == (16, 8, 8, 1)
    assert names["others"].shape == names["again"].shape == names["x"].shape


def anchor(heading: str) -> str:
    """The name that GitHub and MyST give to a heading."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return words.replace(" ", "-")


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(text):
        if re.match(r"\w+:", target):
            continue
        place, _, heading = target.partition("#")
        there = page.parent / place if place else page
        assert there.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert heading in map(anchor, headings), target
