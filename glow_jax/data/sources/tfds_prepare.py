"""Download and prepare a data set with tensorflow-datasets, in a process of its own.

Only that process imports TensorFlow; the process that trains never does.
"""

import concurrent.futures
import importlib.util
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from glow_jax.config import DataConfig
from glow_jax.errors import GlowError

if TYPE_CHECKING:
    from tensorflow_datasets.core.dataset_builder import DatasetBuilder

# Seconds. Long enough for any answer, and short enough for an error message within ten seconds.
_TIMEOUT = 4
# File names in a message; lsun has forty.
_NAMED = 5

# Reported before anything is downloaded: lsun's archives are 43 GB.
_CANNOT = {
    "downsampled_imagenet": "its source is gone (tensorflow/datasets issue 4662)",
    "lsun": "its archives cannot be opened any more (it takes tensorflow-io, which has no build "
    "for today's TensorFlow)",
}


def prepare_apart(builder: "DatasetBuilder", name: str, config: DataConfig, pictures: Path) -> None:
    """Download and prepare a data set in another process.

    Args:
        builder: the data set's builder of tensorflow-datasets.
        name: the user's name of the data set.
        config: `dataroot` and `download` are used.
        pictures: the folder into which the user may put pictures instead.

    Raises:
        GlowError: something is missing; the message says what to do.
    """
    missing = f"Data set {name} is not in {config.dataroot}"
    base = name.partition("/")[0]
    if base in _CANNOT:
        raise GlowError(
            f"{missing}, and {_CANNOT[base]}: put the same pictures into "
            f"{pictures}/train and test, or give --dataset folder:PATH or an .npz file."
        )
    if not config.download:
        raise GlowError(f"{missing}: leave --no_download out to have it downloaded and prepared.")
    manual = manual_folder(config.dataroot)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (manual.is_dir() and any(manual.iterdir())):
        wanted = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise GlowError(f"{missing}, and its files must be put into {manual} by hand: {wanted}")
    archives = _archives_to_download(builder, config.dataroot)
    host = unreachable_host(list(archives))
    tensorflow = importlib.util.find_spec("tensorflow") is not None
    install = "preparing it takes TensorFlow: pip install 'glow-jax[tfds]'"
    if host:
        names = sorted(set(filter(None, archives.values()))) or ["its archives"]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        files = ", ".join(names[:_NAMED]) + more
        raise GlowError(
            f"{missing}, and {host} cannot be reached to download it: connect, or put {files} into "
            f"{manual}{'' if tensorflow else f' ({install})'}; --preset digits needs no download."
        )
    if not tensorflow:
        raise GlowError(f"{missing}, and {install}.")
    _run(builder, name, config.dataroot)


def manual_folder(dataroot: str) -> Path:
    """The folder for archives that the user has downloaded."""
    return Path(dataroot) / "downloads" / "manual"


def _archives_to_download(builder: "DatasetBuilder", dataroot: str) -> dict[str, str]:
    """File name by address, of the archives that are neither downloaded nor put there by hand."""
    from tensorflow_datasets.core.download.resource import get_dl_fname

    downloads = Path(dataroot) / "downloads" / builder.name
    manual = manual_folder(dataroot)
    return {
        url: info.filename or ""
        for url, info in (builder.url_infos or {}).items()
        if not (info.filename and (manual / info.filename).exists())
        and not (downloads / get_dl_fname(url, info.checksum)).exists()
    }


def unreachable_host(urls: list[str]) -> str:
    """The first host of `urls` that does not answer within seconds; empty if all answer."""
    hosts = {}
    for url in urls:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https"):
            hosts.setdefault(parts.hostname, f"{parts.scheme}://{parts.netloc}/")
    # Threads, because looking up a name has no timeout of its own.
    pool = concurrent.futures.ThreadPoolExecutor(max(1, len(hosts)))
    answers = {host: pool.submit(_answers, address) for host, address in hosts.items()}
    concurrent.futures.wait(answers.values(), timeout=_TIMEOUT + 1)
    pool.shutdown(wait=False)
    return next((host for host, one in answers.items() if not (one.done() and one.result())), "")


def _answers(address: str) -> bool:
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return True
    except urllib.error.HTTPError as error:  # an answer, if not a friendly one
        error.close()
        return True
    except OSError:
        return False


def _run(builder: "DatasetBuilder", name: str, dataroot: str) -> None:
    configuration = f"/{builder.builder_config.name}" if builder.builder_config else ""
    whole_name = builder.name + configuration
    # -P: modules are not looked for in the working folder, which may be a stranger's.
    command = [sys.executable, "-P", "-m", "glow_jax.data.sources.tfds_child", whole_name, dataroot]
    own = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(filter(None, (own, os.environ.get("PYTHONPATH"))))
    print(f"Preparing {name} in {dataroot}, once.", file=sys.stderr)
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode == 2 and done.stdout.strip():
        raise GlowError(done.stdout.strip().splitlines()[-1])
    if done.returncode:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        raise GlowError(
            f"Preparing {name} ended early ({ended}): run again, and it starts where it can."
        )
