"""The wheel holds the package, says that it is typed, and holds nothing else."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
WITHOUT_NETWORK = importlib.util.find_spec("setuptools") is not None
needs_a_builder = pytest.mark.skipif(
    not WITHOUT_NETWORK and importlib.util.find_spec("build") is None,
    reason="pip install setuptools, or build",
)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files in a wheel that is built of a copy: building writes beside its sources."""
    place = tmp_path_factory.mktemp("wheel")
    sources, wheels = place / "sources", place / "wheels"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("glow_jax", "tests"):
        shutil.copytree(REPOSITORY / name, sources / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "train.py", "eval.py", "sample.py"):
        shutil.copy(REPOSITORY / name, sources)
    command = ["build", "--wheel", "--outdir", str(wheels)]
    if WITHOUT_NETWORK:
        command = ["pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(sources)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.glob("glow_jax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@needs_a_builder
def test_the_package_is_its_only_content(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"glow_jax"}
    assert not [name for name in names if "test" in Path(name).name and name.endswith(".py")]


@needs_a_builder
def test_every_module_and_the_mark_of_types_are_in_it(names: list[str]) -> None:
    modules = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "glow_jax").rglob("*.py")}
    assert {path.as_posix() for path in modules} <= set(names)
    assert {"glow_jax/py.typed", "glow_jax/demo/page.css", "glow_jax/demo/page.js"} <= set(names)
