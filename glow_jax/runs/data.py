"""`data.json`: which images a run is trained on."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from glow_jax.errors import GlowError
from glow_jax.files import write_json
from glow_jax.runs.inside import read_json

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
    """

    training_images: int
    test_images: int
    image_shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    fingerprint: str


def write_data(folder: Path, data: RunData) -> None:
    """Write `data.json` of a run folder."""
    write_json(folder / DATA, dataclasses.asdict(data))


def read_data(folder: Path) -> RunData | None:
    """Read `data.json` of a run folder; None if it has none, as older runs do.

    Raises:
        GlowError: it is damaged.
    """
    path = folder / DATA
    if path.is_symlink() or not path.is_file():
        return None
    try:
        values = read_json(path, _LARGEST_MIB)
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        data = RunData(**values)
        counts = [data.training_images, data.test_images, data.classes, *data.image_shape]
        texts = [data.fingerprint, *data.class_names]
        if not all(type(one) is int for one in counts) or not all(
            isinstance(one, str) for one in texts
        ):
            raise ValueError("a value is of another type")
    except (OSError, ValueError, TypeError) as error:
        raise GlowError(
            f"{path} is damaged ({type(error).__name__}): remove it to go on without it."
        ) from None
    return dataclasses.replace(
        data, image_shape=tuple(data.image_shape), class_names=tuple(data.class_names)
    )
