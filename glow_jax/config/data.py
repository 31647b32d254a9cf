"""The images and their preparation."""

from dataclasses import dataclass

from glow_jax.config.checks import require


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are prepared."""

    dataset: str = "cifar10"
    """name of the data set, folder:PATH with pictures, or an .npz file"""
    dataroot: str = "./"
    """folder of the data sets"""
    download: bool = True
    """download and prepare the data set if it is missing"""
    image_size: int = 0
    """side to which pictures are resized and centre-cropped; 0 = the data set's own"""
    memory_limit: float = 8
    """gigabytes of images kept in memory; larger data sets are streamed"""
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
        require(self.image_size >= 0, "image_size", self.image_size, "0 (its own) or above")
        require(self.memory_limit >= 0, "memory_limit", self.memory_limit, "at least 0")
        require(self.n_workers >= 0, "n_workers", self.n_workers, "at least 0")
        require(0 <= self.mutation_rate <= 1, "mutation_rate", self.mutation_rate, "from 0 to 1")
        require(0 <= self.validation < 1, "validation", self.validation, "at least 0 and below 1")
