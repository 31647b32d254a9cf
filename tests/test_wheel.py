"""The wheel holds the package and nothing else, and works where nothing else is."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that is built of a copy: building writes beside its sources."""
    place = tmp_path_factory.mktemp("wheel")
    sources, wheels = place / "sources", place / "wheels"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("glow_jax", "tests"):
        shutil.copytree(REPOSITORY / name, sources / name, ignore=ignored)
    scripts = ("setup.py", "train.py", "eval.py", "sample.py")
    for name in ("pyproject.toml", "README.md", "LICENSE", *scripts):
        shutil.copy(REPOSITORY / name, sources)
    command = ["build", "--wheel", "--outdir", str(wheels)]
    if WITHOUT_NETWORK:
        command = ["pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(sources)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.glob("glow_jax-*.whl")
    return wheel


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """The files in the wheel."""
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


@needs_a_builder
def test_the_description_stands_alone(wheel: Path) -> None:
    """PyPI's page has no address of the repository: relative links and pictures break there."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        fields, _, text = archive.read(name).decode().partition("\n\n")
    assert "Description-Content-Type: text/markdown" in fields
    readme = (REPOSITORY / "README.md").read_text()
    targets, ours = (re.findall(r"\]\(([^)]+)\)", page) for page in (readme, text))
    absolute = [target for target in targets if target.startswith("https://")]
    assert ours == absolute
    assert len(absolute) < len(targets)
    assert "\n*[samples of a Glow trained on digits]*\n" in text
    assert "[parity](docs/parity.md)" in readme
    assert "parity (`docs/parity.md`)" in text
    assert "models/fashion_mnist." in text


# What commands and tools write beside the sources.
WRITTEN = [
    "docs/_build/index.html",
    "models/mnist/.lock",
    "models/mnist/directions/smile.npz",
    "models/mnist/export/encode.jaxexport",
    "models/mnist/export/README.md",
    "models/mnist/ood/measured/test/bits.npz",
    "models/mnist/results.json",
    "models/mnist/samples.png",
    "models/mnist/walk.gif",
    "notebooks/.ipynb_checkpoints/sampling-checkpoint.ipynb",
    "runs/digits/hparams.json",
    "tests/__pycache__/test_api.pyc",
]


def git(*words: str) -> str:
    """What git says of the repository."""
    if not (REPOSITORY / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a clone")
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_commands_write_is_ignored_by_git() -> None:
    assert git("check-ignore", "--no-index", *WRITTEN).split() == WRITTEN


@pytest.mark.slow
@needs_a_builder
def test_the_source_distribution_is_what_git_keeps(tmp_path: Path) -> None:
    listed = git("ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    kept = {name for name in listed if os.path.lexists(REPOSITORY / name)}
    sources = tmp_path / "sources"
    for name in kept:
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, sources / name, follow_symlinks=False)
    for name in WRITTEN:
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).touch()
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    command = [sys.executable, "-c", build]
    if not WITHOUT_NETWORK:
        command = [sys.executable, "-m", "build", "--sdist", "--outdir", str(tmp_path), "."]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("glow_jax-*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    files = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    ours = {str(path) for path in files if path.parts[0] != "glow_jax.egg-info"}
    assert ours - {"PKG-INFO", "setup.cfg"} == kept - {".gitattributes", "docs/notebooks"}
    subprocess.run([sys.executable, "docs/conf.py"], cwd=unpacked, check=True)
    assert (unpacked / "docs" / "notebooks" / "sampling.ipynb").is_file()


@pytest.mark.slow
@needs_a_builder
def test_in_a_fresh_environment_it_trains_draws_and_evaluates(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    # What the tests' own environment says of folders with modules, compilers and devices is unsaid.
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C.UTF-8"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", str(tmp_path / "fresh"))
    bin_folder = tmp_path / "fresh" / "bin"
    # pip's own cache and index: they are the user's, not the package's.
    home = {"HOME": os.environ.get("HOME", "")} if "HOME" in os.environ else {}
    pip = [str(bin_folder / "python"), "-m", "pip", "install", "-q", str(wheel)]
    done = subprocess.run(pip, cwd=place, env=environment | home, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    glow = str(bin_folder / "glow-jax")
    version = importlib.metadata.version("glow-jax")
    assert run(glow, "--version") == f"glow-jax {version}\n"
    small = ["--K", "2", "--hidden_channels", "8", "--epochs", "1", "--output_dir", "run"]
    said = run(glow, "train", "--preset", "digits", *small)
    assert "python train.py" not in said
    run(glow, "sample", "run", "--num", "4")
    assert (place / "run" / "samples.png").is_file()
    assert "bits/dim" in run(glow, "eval", "run")
    lines = "import glow_jax; print(glow_jax.__file__); print(glow_jax.load('run').config.K)"
    where, steps = run(str(bin_folder / "python"), "-c", lines).splitlines()
    assert Path(where).is_relative_to(tmp_path / "fresh")
    assert steps == "2"
