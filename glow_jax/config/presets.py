"""Named sets of defaults for `python train.py --preset NAME`, with published bits/dim."""

from dataclasses import dataclass
from typing import Literal

from glow_jax.catalogue import CATALOGUE
from glow_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


@dataclass(frozen=True)
class Published:
    """An architecture of Kingma & Dhariwal 2018 (appendix), with its published bits/dim.

    Attributes:
        dataset: a name in the catalogue, which decides n_bits and augmentation.
        image_size: side of the images.
        K: steps of flow in each level.
        L: levels.
        flow_coupling: additive or affine.
        bits_per_dim: published for the test split; None if there is no figure.
        source: the source of the figure, and how today's images differ from its images.
        batch_size: images in an update.
    """

    dataset: str
    image_size: int
    K: int
    L: int
    flow_coupling: Literal["additive", "affine"]
    bits_per_dim: float | None
    source: str
    batch_size: int = 64

    def config(self, name: str) -> Config:
        """A run with these settings; all others are Glow-PyTorch's."""
        entry = CATALOGUE[self.dataset]
        return Config(
            preset=name,
            model=ModelConfig(
                K=self.K,
                L=self.L,
                flow_coupling=self.flow_coupling,
                n_bits=entry.n_bits,
                image_shape=(self.image_size, self.image_size, entry.image_shape[2]),
            ),
            data=DataConfig(dataset=self.dataset, image_size=self.image_size),
            training=TrainingConfig(
                batch_size=self.batch_size, eval_batch_size=min(512, 8 * self.batch_size)
            ),
        )


_PAPER = "Kingma & Dhariwal 2018"
_IMAGENET = (
    f"{_PAPER}. The images of van den Oord et al. 2016 can no longer be downloaded; those from "
    "image-net.org are resized differently, so their figures are not comparable."
)

# data set, size, K, L, coupling, bits/dim, where from
PUBLISHED: dict[str, Published] = {
    "cifar10": Published(
        "cifar10", 32, 32, 3, "affine", 3.35, f"{_PAPER}; 3.39 by Glow-PyTorch with these settings."
    ),
    "cifar10-qualitative": Published(
        "cifar10", 32, 32, 3, "additive", None, "For samples rather than likelihood."
    ),
    "svhn": Published(
        "svhn_cropped", 32, 32, 3, "affine", None, "Glow-PyTorch's settings; no figure published."
    ),
    "imagenet32": Published("downsampled_imagenet", 32, 48, 3, "affine", 4.09, _IMAGENET),
    "imagenet64": Published("downsampled_imagenet", 64, 48, 4, "affine", 3.81, _IMAGENET),
    "celeba64": Published(
        "celeb_a", 64, 32, 3, "affine", None, "Cropped as in Dinh et al. 2017; no figure for Glow."
    ),
    "celeba256": Published(
        "celeb_a_hq",
        256,
        32,
        6,
        "additive",
        1.03,
        f"{_PAPER}, at 5 bits. Its test split is not published: here a tenth of the 30,000 "
        "images is held out, as many as theirs but not the same ones.",
        batch_size=40,
    ),
    "lsun64": Published(
        "lsun",
        64,
        48,
        3,
        "affine",
        None,
        "tensorflow-datasets can no longer open the archives: export the pictures; they are then "
        "resized to 96 here. No figure is quoted.",
    ),
    "fashion_mnist": Published(
        "fashion_mnist", 32, 32, 3, "affine", None, "Padded like MNIST; no figure for Glow."
    ),
    "mnist": Published(
        "mnist",
        32,
        32,
        3,
        "affine",
        None,
        "Padded to 32 x 32 as in the papers; no figure is quoted.",
    ),
}

PRESETS: dict[str, Config] = {
    # The quick start: scikit-learn's digits, in minutes on two CPU cores.
    "digits": Config(
        preset="digits",
        model=ModelConfig(K=8, L=2, hidden_channels=64, n_bits=4),
        data=DataConfig(dataset="digits", validation=0.1),
        optimizer=OptimizerConfig(lr=2e-3, warmup=5, ema_decay=0.99, max_grad_norm=50),
        training=TrainingConfig(batch_size=64, epochs=60, n_init_batches=8, eval_batch_size=360),
    ),
    # The model in models/: Fashion-MNIST at its own 28 x 28.
    "fashion_mnist-small": Config(
        preset="fashion_mnist-small",
        model=ModelConfig(K=32, L=2, hidden_channels=64, image_shape=(28, 28, 1)),
        data=DataConfig(dataset="fashion_mnist", augment=False, validation=0.05),
        optimizer=OptimizerConfig(
            optimizer="adam",
            lr=1.5e-3,
            schedule="cosine",
            warmup=0.1,
            ema_decay=0.999,
            max_grad_norm=50,
        ),
        training=TrainingConfig(batch_size=8, epochs=18, eval_batch_size=500, memory="fast"),
    ),
    **{name: row.config(name) for name, row in PUBLISHED.items()},
}
