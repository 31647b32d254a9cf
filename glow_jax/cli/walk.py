"""`glow-jax walk`: a short video of a way through the latent space of a run."""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.run_flags import RunFlags
from glow_jax.demo.drawing import Wish, noise_of
from glow_jax.demo.editing import arc, walk, way_along
from glow_jax.demo.incoming import LARGEST_FILE, picture_from
from glow_jax.demo.looking import Encoded, look
from glow_jax.demo.studio import Studio, from_test_split, open_studio
from glow_jax.demo.video import FORMATS, MOST_FRAMES, there_and_back, video
from glow_jax.devices import keep_compiled_programs
from glow_jax.errors import GlowError, shown
from glow_jax.evaluation.evaluate import dataset_of
from glow_jax.evaluation.samples import class_numbers, one_label
from glow_jax.files import expanded, write_whole
from glow_jax.runs import LoadedRun

_DRAW = "seed:"


@dataclass(frozen=True)
class Arguments(RunFlags):
    """Write a short video of a walk: from one image to another, or along a direction.

    An image is the number of a test image, seed:N for a draw, or the path of a picture.
    """

    start: str = "seed:0"
    """image to start from, or to move along --direction"""
    end: str = ""
    """image to walk to along the arc"""
    direction: str = ""
    """direction of the run to walk along, from -strength to strength (see glow-jax directions)"""
    strength: float = 1.0
    """how far to go along the direction; 1 is the difference of the two means"""
    levels: tuple[int, ...] = ()
    """levels that the walk touches, from 1, the finest; by default all"""
    temperature: float = 0.7
    """standard deviation of draws"""
    label: str | None = None
    """class of draws and pictures, by name or number, or several separated by commas where images
    have several (conditional models)"""
    frames: int = 24
    """frames one way; GIF and MP4 go there and back"""
    output: Path | None = None
    """.gif, .mp4, or .png for all frames side by side; by default walk.gif in the run folder"""
    dataset: str | None = None
    """a data set other than the run's own, with images of the same size"""
    dataroot: str | None = None
    """folder of the data sets; by default as in training"""

    def __post_init__(self) -> None:
        """Check every value that can be checked without the run.

        Raises:
            GlowError: a value is out of range, or contradicts another one.
        """
        if bool(self.end) == bool(self.direction):
            raise GlowError("A walk needs --end or --direction, and not both.")
        if not 2 <= self.frames <= MOST_FRAMES:
            raise GlowError(f"frames is {self.frames}; it must be from 2 to {MOST_FRAMES}.")
        if self.output is not None and self.output.suffix.lower() not in FORMATS:
            raise GlowError(f"{shown(self.output)} must end in {', '.join(FORMATS)}.")
        if not abs(self.strength) < float("inf"):
            raise GlowError(f"strength is {self.strength}; it must be a finite number.")


@one_line_errors
def main() -> None:
    """Load the run, encode both ends, decode the walk, write the video."""
    arguments = parse(Arguments)
    keep_compiled_programs()
    run = arguments.load()
    studio = _studio(run, arguments)
    first = _image(studio, arguments.start, arguments)
    second = _image(studio, arguments.end, arguments) if arguments.end else None
    levels = [level - 1 for level in arguments.levels] or None
    edits = arc(arguments.frames, levels)
    if arguments.direction:
        edits = way_along(arguments.direction, arguments.strength, arguments.frames, levels)
    with tqdm(total=len(edits), unit="frame", leave=False) as bar:
        frames = walk(studio, first, second, edits, bar.update)
    path = arguments.output or run.folder / "walk.gif"
    ending = path.suffix.lower()
    content = video(frames if ending == ".png" else there_and_back(frames), ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    print(f"{len(frames)} frames of {run.title}, written to {path}")


def _studio(run: LoadedRun, arguments: Arguments) -> Studio:
    """The run, with its images only where a test image is asked for."""
    asked = any(name.isdigit() for name in (arguments.start, arguments.end))
    if not asked:
        return open_studio(run, None)
    dataset = dataset_of(run, arguments.dataset, dataroot=arguments.dataroot)
    return open_studio(run, dataset, own_dataset=arguments.dataset is None)


def _image(studio: Studio, name: str, arguments: Arguments) -> Encoded:
    classes = None
    if arguments.label is not None:
        classes = class_numbers(arguments.label, studio.class_names, studio.model.config)
    if name.startswith(_DRAW):
        seed = name.removeprefix(_DRAW)
        if not (seed.isascii() and seed.isdigit() and len(seed) < 11):
            raise GlowError(f"{shown(name)} is no draw: give {_DRAW}0, {_DRAW}1, ...")
        wish = Wish(arguments.temperature, int(seed), number=1, classes=classes)
        return Encoded(name, *noise_of(studio, wish))
    if name.isascii() and name.isdigit() and len(name) < 10:
        pixels, y = from_test_split(studio, int(name))
        return look(studio, pixels, y, index=int(name), title=f"test image {name}").encoded
    path = expanded(name, "image")
    if not path.is_file():
        raise GlowError(f"{shown(name)} is no test image's number, no {_DRAW}N, and no file.")
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    pixels = picture_from(studio, content, path.suffix)
    return look(studio, pixels, one_label(studio.model, classes or []), title=path.name).encoded
