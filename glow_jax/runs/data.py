"""`data.json`: which images a run is trained on."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from glow_jax.config.json import build
from glow_jax.errors import GlowError
from glow_jax.files import write_json
from glow_jax.runs.inside import parse_json, read_inside

DATA = "data.json"
_LARGEST_MIB = 16


@dataclass(frozen=True)
class RunData:
    """What a run remembers of its images.

    Attributes:
        training_images: how many, with those held out for validation.
        test_images: how many.
        image_shape: (H, W, C).
        classes: the number of classes; 0 without labels.
        class_names: in the order of the class numbers; none where they are not known.
        fingerprint: the same for the same images, wherever they are.
        label_sets: of multi-hot labels, those that training images have together, as class numbers:
            the most frequent sets first, at most 64; of images that are not in memory, those of a
            sample of 64. Empty for other labels.
    """

    training_images: int
    test_images: int
    image_shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    label_sets: tuple[tuple[int, ...], ...] = ()


def write_data(folder: Path, data: RunData) -> None:
    """Write `data.json` of a run folder."""
    write_json(folder / DATA, dataclasses.asdict(data))


def read_data(folder: Path) -> RunData | None:
    """Read `data.json` of a run folder; None if it has none, as older runs do.

    Raises:
        GlowError: it is damaged, or no regular file.
    """
    path = folder / DATA
    if not os.path.lexists(path):
        return None
    content, remedy = read_inside(path, _LARGEST_MIB), "remove it to go on without it"
    try:
        values = parse_json(path, content)
    except GlowError:
        raise GlowError(f"{path} is damaged: it is no valid JSON; {remedy}.") from None
    try:
        return build(RunData, values, "data")
    except GlowError as error:
        raise GlowError(f"{path} is damaged: {str(error).rstrip('.')}; {remedy}.") from None
