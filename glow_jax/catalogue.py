"""The catalogue of data sets: one row for each, with everything the program knows about it."""

from dataclasses import dataclass, replace

from glow_jax.errors import GlowError


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue.

    Attributes:
        builder: its name in tensorflow-datasets, with the configuration; empty if it has none.
        image_shape: (H, W, C) without `--image_size`; (0, 0, C) if pictures differ in size.
        classes: the number of classes; 0 if there are no labels.
        flips: whether a mirrored image is as likely as the original.
        shifts: whether an image shifted by up to 10 percent is as likely as the original.
        n_bits: the bits of each pixel for which bits/dim are published.
        labels: the feature that holds a class number, or a set of yes-or-no attributes.
        test: the split to test on; empty holds out a tenth of the training images.
        pad: whether a larger `--image_size` adds a black frame, as in the papers.
        centre: side of the square cut from the middle before resizing; 0 for the largest square.
        random_crop_of: side to which pictures are resized before random crops of `--image_size`
            are taken; 0 for no crops.
    """

    builder: str
    image_shape: tuple[int, int, int]
    classes: int
    flips: bool = False
    shifts: bool = False
    n_bits: int = 8
    labels: str = "label"
    test: str = "test"
    pad: bool = False
    centre: int = 0
    random_crop_of: int = 0

    @property
    def mode(self) -> str:
        """Pillow's name for the mode with this number of channels."""
        return "L" if self.image_shape[2] == 1 else "RGB"


# Flips are off for digits and letters, and for garments, because their shoes all point one way.
# Shifts are off for faces and rooms: the photographer framed them, and a black edge is unlikely.
CATALOGUE: dict[str, Entry] = {
    "digits": Entry("", (8, 8, 1), 10, shifts=True, n_bits=4),
    "mnist": Entry("mnist", (28, 28, 1), 10, shifts=True, pad=True),
    "fashion_mnist": Entry("fashion_mnist", (28, 28, 1), 10, shifts=True, pad=True),
    "cifar10": Entry("cifar10", (32, 32, 3), 10, flips=True, shifts=True),
    "cifar100": Entry("cifar100", (32, 32, 3), 100, flips=True, shifts=True),
    "svhn_cropped": Entry("svhn_cropped", (32, 32, 3), 10, shifts=True),
    # The square of 148 around the face is Real NVP's (Dinh et al. 2017, section 4.1).
    "celeb_a": Entry("celeb_a", (64, 64, 3), 40, flips=True, labels="attributes", centre=148),
    "celeb_a_hq": Entry("celeb_a_hq/256", (256, 256, 3), 0, flips=True, n_bits=5, test=""),
    "lsun": Entry("lsun/bedroom", (64, 64, 3), 0, flips=True, test="validation", random_crop_of=96),
    # Published at 32 and at 64: --image_size must choose.
    "downsampled_imagenet": Entry("downsampled_imagenet", (0, 0, 3), 0, test="validation"),
}

ALIASES = {"svhn": "svhn_cropped"}


def find(name: str) -> Entry | None:
    """The row of a data set; None if the catalogue has no such name.

    Args:
        name: its name, an alias, or a name with a configuration: `lsun/bridge`.
    """
    name = ALIASES.get(name, name)
    base, _, configuration = name.partition("/")
    entry = CATALOGUE.get(base)
    if entry is None or not entry.builder or not configuration:
        return entry
    return replace(entry, builder=name)


def sizes(entry: Entry, image_size: int, name: str) -> tuple[int, int]:
    """The sizes of decoded pictures and of random crops.

    Args:
        entry: the data set's row.
        image_size: the requested side; 0 for the data set's own.
        name: the data set's name in messages.

    Returns:
        The side to which pictures are resized, 0 for no resizing; and the side of the random crops
        in batches, 0 for whole images.

    Raises:
        GlowError: the pictures are smaller than `image_size`, or they differ in size and no
            `image_size` is given.
    """
    height, width, _ = entry.image_shape
    if not image_size and not (height and width):
        raise GlowError(f"Pictures of {name} differ in size: give --image_size.")
    # If pictures are resized anyway, image_shape is a default, not a limit.
    free = entry.centre or entry.pad or not (height and width)
    largest = entry.random_crop_of or (image_size if free else min(height, width))
    if image_size > largest:
        raise GlowError(
            f"Pictures of {name} are {largest} x {largest}, smaller than image_size {image_size}."
        )
    size = image_size or (height if height == width else 0)
    return (entry.random_crop_of, size) if entry.random_crop_of else (size, 0)
