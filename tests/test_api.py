"""`import glow_jax`: what it offers, what it waits for, and which part may import which."""

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

import glow_jax
from glow_jax.cli.program import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "glow_jax"


# What it offers


def test_every_name_it_lists_is_there() -> None:
    assert len(set(glow_jax.__all__)) == len(glow_jax.__all__)
    for name in glow_jax.__all__:
        assert getattr(glow_jax, name).__module__.startswith("glow_jax."), name


def test_a_user_s_error_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no run folder") as caught:
        glow_jax.load(tmp_path / "nothing")
    assert isinstance(caught.value, glow_jax.GlowError)


# What it waits for


def loaded_by(statement: str, *packages: str) -> set[str]:
    """Which of the packages a fresh Python has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*(set(sys.modules) & {set(packages)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_it_loads_no_other_framework_and_no_command_line() -> None:
    frameworks = ("torch", "tensorflow", "matplotlib", "sklearn", "tyro", "huggingface_hub")
    # What only some programs need, and takes a third of a second or more.
    heavy = ("orbax.checkpoint", "grain", "tensorflow_datasets")
    assert loaded_by("import glow_jax; glow_jax.load", *frameworks, *heavy, "jax") == {"jax"}


def test_no_command_loads_another_framework_before_it_runs() -> None:
    """Nobody needs PyTorch for what it does not do."""
    names = ", ".join({command.module for command in COMMANDS.values()})
    statement = f"from glow_jax.cli import {names}"
    assert loaded_by(statement, "torch", "tensorflow", "gradio", "jax") == {"jax"}


@pytest.mark.slow
def test_importing_it_takes_little_longer_than_jax() -> None:
    def seconds(statement: str) -> float:
        """Processor time, which other programs on the machine change little."""
        program = f"{statement}\nimport time\nprint(time.process_time())"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
        )
        return float(done.stdout)

    alone = min(seconds("import jax") for _ in range(3))
    both = min(seconds("import glow_jax; glow_jax.load") for _ in range(3))
    # Flax alone takes 0.6 of the time of JAX, the rest 0.2.
    assert both <= 2.5 * alone


def test_importing_it_waits_for_nothing_until_something_is_asked_for() -> None:
    heavy = ("jax", "flax", "numpy", "orbax", "optax", "tyro")
    assert loaded_by("import glow_jax, train, eval, sample, demo", *heavy) == set()
    assert loaded_by("from glow_jax import GlowError", "jax") == {"jax"}
    assert loaded_by("import glow_jax; glow_jax.data", "numpy") == {"numpy"}


def test_its_names_can_be_completed_and_others_are_refused() -> None:
    assert {"load", "Config"} <= set(dir(glow_jax))
    with pytest.raises(AttributeError, match="module 'glow_jax' has no attribute 'nothing'"):
        glow_jax.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


# Which part may import which


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def names_imported(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported anywhere in a tree, and what is imported of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the package imports by whole names"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The package or module right below glow_jax: `data` of glow_jax.data.dataset."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def rooms_imported(path: Path) -> set[str]:
    names = (name for name in names_imported(tree_of(path)) if name.startswith("glow_jax"))
    return {room(name) for name in names} - {""}


# What may know nothing of how a model is trained, fed, kept or asked for.
PURE = ("layers", "kernels", "flow", "stack", "reversible", "model", "pixels", "latents")
# `pretrained` alone, a base of the model, imports the hub: in its methods, when they are called.
ABOVE_RUNS = {
    "training",
    "cli",
    "bridge",
    "evaluation",
    "ood",
    "hub",
    "publishing",
    "export",
    "demo",
}
PURE_KNOW_NOT = {*ABOVE_RUNS, "data", "runs", "devices"}
FORBIDDEN = {
    **dict.fromkeys(PURE, PURE_KNOW_NOT),
    "config": {*ABOVE_RUNS, "data", "runs", "model"},
    "data": {*ABOVE_RUNS, "runs", "model"},
    "devices": {*ABOVE_RUNS, "runs", "model", "data"},
    "runs": {*ABOVE_RUNS, "data"},
    "hub": (ABOVE_RUNS | {"data"}) - {"hub"},
    "evaluation": {"training", "cli", "bridge", "ood", "publishing", "export", "demo"},
    "publishing": {"training", "cli", "bridge", "ood", "export", "demo"},
    "training": {"cli", "bridge", "ood", "publishing", "export", "demo"},
    "ood": {"training", "cli", "bridge", "publishing", "export", "demo"},
    "bridge": {"cli", "hub", "publishing", "export", "demo"},
    "export": {"training", "cli", "bridge", "ood", "publishing", "demo"},
    "demo": {"training", "cli", "bridge", "publishing", "export"},
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_imports_go_one_way(name: str) -> None:
    paths = [path for module, path in modules().items() if room(module) == name]
    assert paths
    forbidden = FORBIDDEN[name] | ({"demo"} - {name})
    found = {path.name: rooms_imported(path) & forbidden for path in paths}
    assert not {path: rooms for path, rooms in found.items() if rooms}


def test_the_command_line_s_libraries_stay_in_its_package() -> None:
    users = {
        room(module)
        for module, path in modules().items()
        if {"tyro", "argparse"} & {name.split(".")[0] for name in names_imported(tree_of(path))}
    }
    assert users == {"cli"}


def test_the_page_alone_knows_how_it_is_made() -> None:
    users = {
        module
        for module, path in modules().items()
        if {"gradio", "starlette"} & {name.split(".")[0] for name in names_imported(tree_of(path))}
    }
    assert users == {f"glow_jax.demo.{name}" for name in ("page", "tab_editing", "tabs")}


def mentions(tree: ast.AST, owner: str, attribute: str) -> bool:
    """Whether `owner.attribute` stands in a tree, or is imported from there."""
    of = {f"{owner}.{attribute}", f"{owner.rpartition('.')[2]}.{attribute}"}
    uses = (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return bool(of & set(uses)) or any(name in of for name in names_imported(tree))


@pytest.mark.parametrize(
    ("owner", "attribute", "place"),
    [("jax", "pmap", "devices/pmap.py"), ("PIL.Image", "open", "data/decoding.py")],
)
def test_one_file_alone_does_it(owner: str, attribute: str, place: str) -> None:
    users = [path for path in modules().values() if mentions(tree_of(path), owner, attribute)]
    assert [path.relative_to(PACKAGE).as_posix() for path in users] == [place]


def imported_at_once(path: Path, known: Collection[str]) -> set[str]:
    """The package's modules that a file needs to be imported; not those that a function imports.

    `from glow_jax.runs import lock` needs the module glow_jax.runs.lock, not what else its package
    has.
    """
    found = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
    return found & set(known)


def first_cycle(graph: dict[str, set[str]]) -> list[str]:
    """A way from a node to itself, or nothing."""
    done: set[str] = set()

    def visit(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph[node]):
            if found := visit(following, [*way, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()
    graph = {name: imported_at_once(path, known) - {name} for name, path in known.items()}
    assert sum(map(len, graph.values())) > 100
    assert first_cycle(graph) == []


def test_the_checks_above_can_fail() -> None:
    assert first_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert mentions(ast.parse("from PIL import Image\nImage.open('a')"), "PIL.Image", "open")
    assert mentions(ast.parse("def f():\n  from jax import pmap"), "jax", "pmap")
    assert not mentions(ast.parse("path.open()"), "PIL.Image", "open")
    inner = ast.parse("def f():\n  import glow_jax.cli.flags")
    assert list(names_imported(inner)) == ["glow_jax.cli.flags"]
