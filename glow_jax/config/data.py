"""The images and their preparation."""

from dataclasses import dataclass
from typing import Literal

from glow_jax.config.checks import check_choices, require

# Side of the largest images; a larger number in a stranger's file would only take memory.
_LARGEST = 16_384
# Gigabytes or megapixels: more than any machine has.
_MOST = 1_000_000


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are prepared."""

    dataset: str = "cifar10"
    """name of the data set, folder:PATH with pictures, or a .zip, .npz or .npy file"""
    dataroot: str = "./"
    """folder of the data sets"""
    download: bool = True
    """download and prepare the data set if it is missing"""
    image_size: int = 0
    """side to which pictures are resized and centre-cropped; 0 = the data set's own"""
    channels: Literal["1", "3", "auto"] = "auto"
    """channels of a folder's pictures: 1 for grey, 3 for colours; auto is 1 if all are grey"""
    memory_limit: float = 8
    """gigabytes of images kept in memory; larger data sets are streamed"""
    picture_limit: float = 200
    """megapixels that a picture of a folder may have; larger ones are left out and named"""
    class_limit: int = 10_000
    """classes that labels may have; more are taken for a mistake"""
    augment: bool = True
    """shift by up to 10 percent, and flip where the data set allows it"""
    mutation_rate: float = 0.0
    """share of values of training images replaced by noise; 0.1 to 0.3 for a background model"""
    n_workers: int = 6
    """processes that read images that do not fit in memory"""
    validation: float = 0.0
    """fraction of the training images held out to choose the best checkpoint"""

    def __post_init__(self) -> None:
        """Check every value."""
        check_choices(self)
        sound = 0 <= self.image_size <= _LARGEST
        require(sound, "image_size", self.image_size, f"0 (its own) or up to {_LARGEST}")
        memory, picture = self.memory_limit, self.picture_limit
        require(0 <= memory <= _MOST, "memory_limit", memory, f"from 0 to {_MOST}")
        require(0 < picture <= _MOST, "picture_limit", picture, f"above 0 and at most {_MOST}")
        require(self.class_limit >= 1, "class_limit", self.class_limit, "at least 1")
        require(self.n_workers >= 0, "n_workers", self.n_workers, "at least 0")
        require(0 <= self.mutation_rate <= 1, "mutation_rate", self.mutation_rate, "from 0 to 1")
        require(0 <= self.validation < 1, "validation", self.validation, "at least 0 and below 1")
