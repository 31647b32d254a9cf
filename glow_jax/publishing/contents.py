"""The files of a model folder, made from a run or from a model alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from glow_jax.errors import GlowError
from glow_jax.evaluation.png import enlarged, png
from glow_jax.evaluation.samples import grid, label_numbers, labels_in_turn, sample_pixels
from glow_jax.files import write_whole, writing
from glow_jax.hub import (
    PublishedRun,
    Weights,
    in_a_file,
    may_be_replaced,
    origin_of,
    values_for,
)
from glow_jax.hub.model_folder import CONFIG, LARGEST_MIB, WEIGHTS, without_paths
from glow_jax.hub.paths import told, told_dataset
from glow_jax.model import Glow, parameter_count, weights_digest
from glow_jax.publishing.card import UNKNOWN_LICENSE, Card, Training, class_name
from glow_jax.publishing.results import Measured, measured_of
from glow_jax.runs import LoadedRun, RunData, read_metrics, read_results
from glow_jax.runs.metrics import METRICS, Row
from glow_jax.runs.results import RESULTS

CARD = "README.md"
PICTURE = "card.png"
PUBLISHED_FILES = (CONFIG, WEIGHTS, METRICS, PICTURE, CARD)
"""What a model folder consists of, in the order of writing."""

_ROWS, _COLUMNS = 8, 8
_MOST_ROWS = 16
_TEMPERATURE = 0.7

Contents = Mapping[str, bytes]
"""What each file of a model folder holds, by its name."""


def contents_of(model: Glow, *, name: str, license: str | None) -> Contents:
    """The files of a model in memory.

    If it was loaded from a run whose arrays it still has, all that the run knows is stated.
    A changed one keeps the licence.

    Args:
        model: the model, in float32.
        name: the name that it will have on the hub, or its folder. Of a path that may name the
            user the card tells the last part only; see `told`.
        license: an identifier of the hub's, such as mit; None for that of the run, or else
            `UNKNOWN_LICENSE`.

    Raises:
        GlowError: the model is not in float32, or there can be no such licence.
    """
    run, content = _run_of(model), in_a_file(model)
    if run is not None and in_a_file(run.average_or_model) == content:
        return contents_of_run(run, name=name, license=license)
    license = _license(license, run)
    config = values_for(
        model.config,
        weights="unsaid",
        step=0,
        content=content,
        license=license,
        images=None,
        results=None,
    )
    card = _card(model, name, license, "unsaid")
    return _files(model, None, content, config, card)


def contents_of_run(run: LoadedRun, *, name: str, license: str | None) -> Contents:
    """The files of a loaded run, of its averaged parameters if they were loaded; see `contents_of`.

    Raises:
        GlowError: a file of the run is damaged, there can be no such licence, or the run has more
            lines of metrics, names of classes or results than can be read again.
    """
    license = _license(license, run)
    results = _results_of(run)
    measured = None if results is None else measured_of(results)
    rows = run.rows if isinstance(run, PublishedRun) else read_metrics(run.folder)
    rows = [row for row in rows if (row["step"] or 0) <= run.step]
    images, weights, model = run.data, _weights_of(run), run.average_or_model
    # A converted checkpoint leaves neither, and its configuration does not know its images.
    told = Training(without_paths(run.config), run.step, images, _hours(rows))
    training = told if rows or images else None
    card = _card(model, name, license, weights, images, training, measured)
    content = in_a_file(model)
    config = values_for(
        run.config,
        weights=weights,
        step=run.step,
        content=content,
        license=license,
        images=images,
        results=results,
    )
    return _files(model, images, content, config, card, rows)


def states_results(contents: Contents) -> bool:
    """Whether a model folder states bits/dim of its parameters."""
    return json.loads(contents[CONFIG])["results"] is not None


def license_in(contents: Contents) -> str:
    """The licence that a model folder states."""
    return json.loads(contents[CONFIG])["license"]


def _license(given: str | None, run: LoadedRun | None) -> str:
    """The licence to state: what the user says, or else what is known of the run."""
    known = given if given is not None or run is None else run.license
    return UNKNOWN_LICENSE if known is None else known


def _weights_of(run: LoadedRun) -> Weights:
    if isinstance(run, PublishedRun):
        return run.weights
    if run.average is not None:
        return "averaged"
    # Training saves an average beside the parameters; a checkpoint without it may be of either.
    may_be_either = run.config.optimizer.ema_decay > 0 and not run.has_optimizer
    return "unsaid" if may_be_either else "trained"


def _results_of(run: LoadedRun) -> Mapping[str, object] | None:
    """What was measured of the parameters of a loaded run, as strangers may read it.

    What `eval.py` wrote lately goes before what a model folder states.
    """
    beside = read_results(run.folder)
    found: list[tuple[Mapping[str, object] | None, bool]] = [(beside, False)]
    if isinstance(run, PublishedRun):
        # Another model may have come into the folder, or under the name on the hub, since an older
        # `eval.py` measured, which did not say of which weights; a run keeps its steps. Beside the
        # folder's own results stands the digest of its weights.
        found = [(beside, True), (run.results, False)]
    for results, needs_digest in found:
        measured = measured_of(results or {})
        if measured is not None and _are_of(measured, run, needs_digest=needs_digest):
            return {**(results or {}), "dataset": told_dataset(measured.dataset)}
    return None


def _are_of(measured: Measured, run: LoadedRun, *, needs_digest: bool) -> bool:
    """Whether figures were measured of the parameters of a loaded run."""
    is_average = run.average is not None
    if (measured.step, measured.averaged_parameters) != (run.step, is_average):
        return False
    if measured.weights_sha256 is None:
        return not needs_digest
    return measured.weights_sha256 == weights_digest(run.average_or_model)


def _hours(rows: Sequence[Row]) -> float | None:
    """How long the epochs of a run took; None if some are not there."""
    if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)) or not rows:
        return None
    seconds = (value for row in rows for name, value in row.items() if name.startswith("seconds_"))
    return sum(value or 0 for value in seconds) / 3600


def _card(
    model: Glow,
    name: str,
    license: str,
    weights: Weights,
    images: RunData | None = None,
    training: Training | None = None,
    measured: Measured | None = None,
) -> Card:
    return Card(
        name=_name_on_card(name),
        license=license,
        model=model.config,
        parameters=parameter_count(model),
        weights=weights,
        picture=PICTURE,
        temperature=_TEMPERATURE,
        labels=_labels_of_rows(model, images),
        rows=_MOST_ROWS,
        training=training,
        measured=measured,
    )


def _name_on_card(name: str) -> str:
    """A model's name on the hub or its folder, without folders that may name the user."""
    shown = told(name)
    return Path(name).resolve().name if shown in (".", "..") else shown


def _labels_of_rows(model: Glow, images: RunData | None) -> list[str]:
    """What the card says of each row of its picture; nothing of an unconditional model."""
    if not model.config.y_condition:
        return []
    names = () if images is None else images.class_names
    return [
        " + ".join(class_name(number, names) for number in numbers) or "none"
        for numbers in label_numbers(model, images)
    ]


def _files(
    model: Glow,
    images: RunData | None,
    content: bytes,
    config: Mapping[str, object],
    card: Card,
    rows: Sequence[Row] = (),
) -> dict[str, bytes]:
    files = {CONFIG: (json.dumps(config, indent=2) + "\n").encode()}
    if rows:
        files[METRICS] = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    _check_sizes(files)
    picture = png(enlarged(_samples(model, images, min(len(card.labels) or _ROWS, _MOST_ROWS))))
    return {WEIGHTS: content, PICTURE: picture, CARD: card.text().encode(), **files}


def _samples(model: Glow, images: RunData | None, rows: int) -> np.ndarray:
    """The grid of a card: of a conditional model, a row for each label."""
    labels = labels_in_turn(model, rows, images)
    if labels is not None:
        labels = jax.numpy.repeat(labels, _COLUMNS, axis=0)
    count, key = rows * _COLUMNS, jax.random.key(0)
    pixels = sample_pixels(model, key, count, temperature=_TEMPERATURE, y=labels)
    return grid(pixels, columns=_COLUMNS)


def _check_sizes(files: Contents) -> None:
    """Refuse to write what could not be read.

    Raises:
        GlowError: a file is too large.
    """
    for name, content in files.items():
        if len(content) > LARGEST_MIB[name] * 2**20:
            source = "data.json and results.json" if name == CONFIG else name
            raise GlowError(
                f"{name} would have {len(content)} bytes, and a model folder's can have at most "
                f"{LARGEST_MIB[name]} MiB: shorten the run's {source}."
            )


def _run_of(model: Glow) -> LoadedRun | None:
    """The run that a model was loaded from, if it is still there."""
    origin = origin_of(model)
    if origin is None:
        return None
    try:
        return origin.open()
    except (GlowError, OSError):
        return None


def write_contents(folder: Path, contents: Contents) -> None:
    """Write a model folder; each file appears whole, and `config.json` first.

    Files of an earlier model there are replaced; those of them that this one has not are removed,
    and `results.json` if the weights are others. If this is interrupted, the configuration states
    another digest than that of the weights, so the folder is refused, and can be written again.

    Raises:
        OSError: a file cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if may_be_replaced(folder):
        weights = folder / WEIGHTS
        same = weights.is_file() and weights.read_bytes() == contents[WEIGHTS]
        for name in PUBLISHED_FILES if same else (*PUBLISHED_FILES, RESULTS):
            path = folder / name
            if name not in contents and (path.is_symlink() or path.is_file()):
                path.unlink()
    for name in PUBLISHED_FILES:
        if name in contents:
            write_whole(folder / name, contents[name])
