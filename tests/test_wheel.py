"""The wheel holds the package and nothing else, and works where nothing else is."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
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


class Fresh:
    """An environment with the wheel and what it requires, and an empty folder to work in."""

    def __init__(self, place: Path, wheel: Path):
        self.folder, self.root = place / "elsewhere", place / "environment"
        self.folder.mkdir()
        # What the tests' own environment says of folders with modules, compilers and devices is
        # unsaid.
        self._variables = {"PATH": os.defpath, "HOME": str(place), "LANG": "C.UTF-8"}
        self.run(sys.executable, "-m", "venv", str(self.root))
        # pip's own cache and index: they are the user's, not the package's.
        home = os.environ.get("HOME", str(place))
        self.run("python", "-m", "pip", "install", "-q", str(wheel), home=home)

    def run(self, program: str, *words: str, status: int = 0, home: str | None = None) -> str:
        """The output of a program, of this environment where it is there."""
        own = self.root / "bin" / program
        done = subprocess.run(
            [str(own) if own.exists() else program, *words],
            cwd=self.folder,
            env=self._variables | ({} if home is None else {"HOME": home}),
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    def python(self, *lines: str) -> list[str]:
        """What a program prints, line by line."""
        return self.run("python", "-c", "\n".join(lines)).splitlines()


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Where the wheel is installed, and a small model has been trained as `run`."""
    fresh = Fresh(tmp_path_factory.mktemp("fresh"), wheel)
    small = ["--K", "2", "--hidden_channels", "8", "--epochs", "1", "--output_dir", "run"]
    said = fresh.run("glow-jax", "train", "--preset", "digits", *small)
    assert "python train.py" not in said
    return fresh


@pytest.mark.slow
@needs_a_builder
def test_in_a_fresh_environment_it_draws_and_evaluates(fresh: Fresh) -> None:
    version = importlib.metadata.version("glow-jax")
    assert fresh.run("glow-jax", "--version") == f"glow-jax {version}\n"
    fresh.run("glow-jax", "sample", "run", "--num", "4")
    assert (fresh.folder / "run" / "samples.png").is_file()
    assert "bits/dim" in fresh.run("python", "-m", "glow_jax", "eval", "run")
    where, steps = fresh.python(
        "import glow_jax", "print(glow_jax.__file__)", "print(glow_jax.load('run').config.K)"
    )
    assert Path(where).is_relative_to(fresh.root)
    assert steps == "2"


@pytest.mark.slow
@needs_a_builder
def test_in_a_fresh_environment_it_writes_model_folders(fresh: Fresh) -> None:
    (same,) = fresh.python(
        "import glow_jax, jax, numpy as np",
        "model = glow_jax.load('run')",
        "model.save_pretrained('kept')",
        "again = glow_jax.Glow.from_pretrained('kept')",
        "one, other = (m.sample(jax.random.key(0), 2) for m in (model, again))",
        "print(np.array_equal(one, other))",
    )
    assert same == "True"
    fresh.run("glow-jax", "sample", "kept", "--num", "4", "--output", "drawn.png")
    assert (fresh.folder / "drawn.png").is_file()


@pytest.mark.slow
@needs_a_builder
def test_in_a_fresh_environment_it_exports(fresh: Fresh) -> None:
    assert "encode.jaxexport" in fresh.run("glow-jax", "export", "run", "--output", "programs")
    shape, finite = fresh.python(
        "from jax import export",
        "import numpy as np",
        "sample = export.deserialize(bytearray(open('programs/sample.jaxexport', 'rb').read()))",
        "drawn = sample.call(np.zeros((3, 64), np.float32), np.float32(1))",
        "print(drawn['pixels'].shape)",
        "print(np.isfinite(drawn['values']).all())",
    )
    assert (shape, finite) == ("(3, 8, 8, 1)", "True")
    assert not list((fresh.folder / "programs").glob("*.onnx"))  # whose library is not required


@pytest.mark.slow
@needs_a_builder
def test_in_a_fresh_environment_it_converts(fresh: Fresh) -> None:
    pytest.importorskip("torch")
    checkpoint = REPOSITORY / "tests" / "data" / "additive_plain" / "glow.pt"
    words = ["convert", "from-torch", str(checkpoint), "--output", "converted"]
    said = fresh.run("glow-jax", *words, status=2)
    assert said == "error: PyTorch is not installed: pip install 'glow-jax[torch]'.\n"
    # PyTorch takes gigabytes. The tests' own comes last, so that all else is what was installed.
    (packages,) = fresh.python("import sysconfig", "print(sysconfig.get_path('purelib'))")
    (Path(packages) / "pytorch.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    assert "largest differences from PyTorch" in fresh.run("glow-jax", *words)
    fresh.run("glow-jax", "sample", "converted", "--num", "4")
    fresh.run("glow-jax", "convert", "to-torch", "converted", "--output", "again/glow.pt")
    assert (fresh.folder / "again" / "glow.pt").is_file()
