"""Everything that decides a run: one tree of frozen dataclasses, saved as `hparams.json`.

The flags of `train.py` are generated from it. Where Glow-PyTorch has the flag, name and default
are the same; `--no_X` turns off a field X.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from tyro.conf import Suppress

from glow_jax.errors import GlowError

_T = TypeVar("_T")


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise GlowError(f"{name} is {value}; it must be {wanted}.")


def _check_choices(section: object) -> None:
    """Raise `GlowError` where a field with named choices holds something else."""
    for name, hint in get_type_hints(type(section)).items():
        value = getattr(section, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            _require(False, name, repr(value), f"one of {', '.join(get_args(hint))}")


@dataclass(frozen=True)
class ModelConfig:
    """The architecture: all that is needed to build a Glow."""

    K: int = 32
    """steps of flow in each level"""
    L: int = 3
    """levels"""
    hidden_channels: int = 512
    """channels of the coupling networks' two hidden layers"""
    actnorm_scale: float = 1.0
    """standard deviation of the steps' actnorms after initialisation"""
    flow_permutation: Literal["invconv", "shuffle", "reverse"] = "invconv"
    """how channels are mixed between couplings"""
    flow_coupling: Literal["additive", "affine"] = "affine"
    """whether couplings shift, or shift and scale"""
    LU_decomposed: bool = True
    """store the 1x1 convolutions' matrices as LU products"""
    learn_top: bool = True
    """learn the prior of the last level"""
    y_condition: bool = False
    """condition the top prior on the label, and classify from the top latent"""
    multi_class: bool = False
    """labels are multi-hot: several classes may hold at once (needs y_condition)"""
    n_bits: int = 8
    """bits kept of each 8-bit pixel"""

    # What the data set or a converted checkpoint decides, and no flag.
    image_shape: Annotated[tuple[int, int, int], Suppress] = (0, 0, 0)
    """(H, W, C); zeros until the data set decides"""
    y_classes: Annotated[int, Suppress] = 10
    pad_ones: Annotated[bool, Suppress] = False
    """the last convolutions pad with ones (rosinality/glow-pytorch)"""
    plain_levels: Annotated[tuple[int, ...], Suppress] = ()
    """levels, from 0, whose 1x1 matrices are plain although LU_decomposed"""

    def __post_init__(self) -> None:
        """Check every value, and that the image can be squeezed L times."""
        _check_choices(self)
        for name in ("K", "L", "hidden_channels"):
            value = getattr(self, name)
            _require(value >= 1, name, value, "at least 1")
        _require(self.actnorm_scale > 0, "actnorm_scale", self.actnorm_scale, "above 0")
        _require(1 <= self.n_bits <= 8, "n_bits", self.n_bits, "from 1 to 8")
        _require(
            self.y_condition or not self.multi_class,
            "multi_class",
            self.multi_class,
            "off where y_condition is off",
        )
        least = 1 if self.y_condition else 0
        _require(self.y_classes >= least, "y_classes", self.y_classes, f"at least {least}")
        _require(
            set(self.plain_levels) <= set(range(self.L)),
            "plain_levels",
            self.plain_levels,
            f"of levels from 0 to {self.L - 1}",
        )
        _require(
            not any(self.image_shape) or min(self.image_shape) >= 1,
            "image_shape",
            self.image_shape,
            "positive in every entry, or all zeros until it is decided",
        )
        height, width, _ = self.image_shape
        if height % 2**self.L or width % 2**self.L:
            fits = 0
            while height % 2 ** (fits + 1) == 0 and width % 2 ** (fits + 1) == 0:
                fits += 1
            advice = f"the largest L that fits is {fits}" if fits else "no L fits an odd size"
            raise GlowError(
                f"Images of {height} x {width} cannot be squeezed L = {self.L} times: both sides "
                f"must be divisible by {2**self.L}; {advice}."
            )

    @property
    def dimensions(self) -> int:
        """D, the number of values in an image."""
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(h, w, c) of what each level factors out, finest first, the top latent last."""
        height, width, channels = self.image_shape
        shapes = []
        for level in range(self.L):
            height, width, channels = height // 2, width // 2, channels * 4
            channels = channels if level == self.L - 1 else channels // 2
            shapes.append((height, width, channels))
        return tuple(shapes)


@dataclass(frozen=True)
class DataConfig:
    """Which images, and what is done to them."""

    dataset: str = "cifar10"
    """name of the data set, folder:PATH with pictures, or an .npz file"""
    dataroot: str = "./"
    """folder where data sets live"""
    download: bool = True
    """download and prepare the data set if it is missing"""
    image_size: int = 0
    """side to which pictures are resized and centre-cropped; 0 = the data set's own"""
    memory_limit: float = 8
    """gigabytes of images that are kept in memory; more is streamed"""
    augment: bool = True
    """shift by up to 10 percent, and flip where the data set allows it"""
    mutation_rate: float = 0.0
    """share of training images' values that noise replaces; 0.1 to 0.3 for a background model"""
    n_workers: int = 6
    """processes that read what does not fit in memory"""
    validation: float = 0.0
    """fraction of the training images held out to choose the best checkpoint by"""

    def __post_init__(self) -> None:
        """Check every value."""
        _require(self.image_size >= 0, "image_size", self.image_size, "0 (its own) or above")
        _require(self.memory_limit >= 0, "memory_limit", self.memory_limit, "at least 0")
        _require(self.n_workers >= 0, "n_workers", self.n_workers, "at least 0")
        _require(0 <= self.mutation_rate <= 1, "mutation_rate", self.mutation_rate, "from 0 to 1")
        _require(0 <= self.validation < 1, "validation", self.validation, "at least 0 and below 1")


@dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated."""

    optimizer: Literal["adamax", "adam"] = "adamax"
    """both with the published L2 weight decay of 5e-5"""
    lr: float = 5e-4
    """learning rate after the warm-up"""
    warmup: float = 5
    """epochs of linear warm-up, epoch by epoch; fractions allowed"""
    max_grad_clip: float = 0
    """clip every gradient entry to this size; 0 = off"""
    max_grad_norm: float = 0
    """clip the norm of the whole gradient to this; 0 = off"""
    ema_decay: float = 0
    """evaluate and sample with an exponential moving average of the parameters; 0 = off"""

    def __post_init__(self) -> None:
        """Check every value."""
        _check_choices(self)
        _require(self.lr > 0, "lr", self.lr, "above 0")
        for name in ("warmup", "max_grad_clip", "max_grad_norm"):
            value = getattr(self, name)
            _require(value >= 0, name, value, "0 (off) or above")
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "at least 0 and below 1")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in what portions, and from what start."""

    batch_size: int = 64
    """images in a batch, over all devices"""
    accumulate: int = 1
    """batches whose mean gradient makes one update: the same as one larger batch, in less memory"""
    eval_batch_size: int = 512
    """images in an evaluation batch, over all devices"""
    epochs: int = 250
    """passes over the training images"""
    n_init_batches: int = 8
    """batches whose images initialise the actnorms, all at once on one device"""
    y_weight: float = 0.01
    """weight of the classification loss, in nats, beside bits/dim"""
    seed: int = 0
    """seed of everything random; 0 = choose one and print it"""
    memory: Literal["fast", "remat", "reversible"] = "remat"
    """what a gradient keeps: what it is fastest with, each step's input, or each level's output"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """type in which the coupling networks compute"""
    saved_model: str = ""
    """run folder whose weights a new run starts from"""
    saved_optimizer: str = ""
    """run folder whose optimizer state and step a new run goes on from"""

    def __post_init__(self) -> None:
        """Check every value."""
        _check_choices(self)
        _require(
            self.memory != "reversible" or self.dtype != "bfloat16",
            "dtype",
            self.dtype,
            "float32 where memory is reversible: in bfloat16 inputs cannot be reconstructed",
        )
        for name in ("batch_size", "accumulate", "eval_batch_size", "epochs", "n_init_batches"):
            value = getattr(self, name)
            _require(value >= 1, name, value, "at least 1")
        _require(self.y_weight >= 0, "y_weight", self.y_weight, "at least 0")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        _require(
            bool(self.saved_model) or not self.saved_optimizer,
            "saved_optimizer",
            self.saved_optimizer,
            "given together with saved_model",
        )

    @property
    def images_per_update(self) -> int:
        """Images behind one update of the parameters."""
        return self.batch_size * self.accumulate


@dataclass(frozen=True)
class OutputConfig:
    """Where the run happens, and where its files go."""

    output_dir: str = "output/"
    """folder of the run"""
    fresh: bool = False
    """move an existing output folder aside and start over"""
    resume: bool = False
    """continue the run in the output folder"""
    step: int | None = None
    """checkpoint to resume from, if not the newest; later ones are set aside"""
    devices: int = 0
    """devices of this machine to train on; on a CPU, virtual ones; 0 = all"""
    cuda: bool = True
    """use a GPU or TPU where there is one; --no_cuda trains on the CPU"""
    checkpoint_every: str = ""
    """save also every so many steps (500) or minutes (10m), not only after each epoch"""
    coordinator: str = ""
    """HOST:PORT of process 0, to train in several processes; on clusters JAX finds it by itself"""
    num_processes: int = 0
    """how many processes train together (needs coordinator)"""
    process_id: int | None = None
    """which of them this is, from 0 (needs coordinator)"""

    def __post_init__(self) -> None:
        """Check every value."""
        _require(self.devices >= 0, "devices", self.devices, "0 (all) or above")
        _require(
            re.fullmatch(r"([1-9]\d*m?)?", self.checkpoint_every) is not None,
            "checkpoint_every",
            repr(self.checkpoint_every),
            "a number of steps (500) or of minutes (10m)",
        )
        self._check_processes()
        if self.fresh and self.resume:
            raise GlowError("--fresh starts over and --resume goes on: give one of them.")
        _require(self.resume or self.step is None, "step", self.step, "given with --resume")

    def _check_processes(self) -> None:
        if not self.coordinator:
            together = "left out where coordinator is"
            _require(self.num_processes == 0, "num_processes", self.num_processes, together)
            _require(self.process_id is None, "process_id", self.process_id, together)
            return
        host, _, port = self.coordinator.rpartition(":")
        _require(bool(host) and port.isdigit(), "coordinator", self.coordinator, "HOST:PORT")
        count = self.num_processes
        _require(count >= 1, "num_processes", count, "at least 1 where coordinator is given")
        _require(
            self.process_id is not None and 0 <= self.process_id < count,
            "process_id",
            self.process_id,
            f"from 0 to {count - 1}",
        )

    @property
    def checkpoint_steps(self) -> int:
        """Steps between checkpoints, 0 if they are not counted in steps."""
        return int(self.checkpoint_every) if self.checkpoint_every.isdigit() else 0

    @property
    def checkpoint_minutes(self) -> int:
        """Minutes between checkpoints, 0 if they are not counted in minutes."""
        return int(self.checkpoint_every[:-1]) if self.checkpoint_every.endswith("m") else 0


@dataclass(frozen=True)
class Config:
    """A whole run."""

    preset: str | None = None
    """a named set of defaults, which other flags override"""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


def to_json(config: Config) -> dict:
    """The tree as plain values, for `hparams.json`."""
    return dataclasses.asdict(config)


def from_json(values: object) -> Config:
    """The tree from plain values; what is absent takes its default, as older folders need.

    Raises:
        GlowError: a value is unknown, of the wrong type or out of range.
    """
    return _build(Config, values, "hparams")


def _build(kind: type[_T], values: object, where: str) -> _T:
    if not isinstance(values, dict):
        raise GlowError(f"{where} is {values!r}; it must be an object with named fields.")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise GlowError(f"{where} has a field {unknown[0]!r} that glow_jax does not know.")
    built: dict[str, Any] = {
        name: _build(hints[name], value, f"{where}.{name}")
        if dataclasses.is_dataclass(hints[name])
        else _checked(hints[name], value, f"{where}.{name}")
        for name, value in values.items()
    }
    return kind(**built)


def _checked(hint: object, value: object, where: str) -> object:
    """`value` as the type `hint`, which JSON may have made an int of a float, a list of a tuple."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is float and type(value) is int:
        return float(value)
    if origin is Literal and value in arguments:
        return value
    if origin is UnionType and any(type(value) is argument for argument in arguments):
        return value
    if origin is tuple and isinstance(value, list):
        fits = arguments[-1] is Ellipsis or len(arguments) == len(value)
        if fits and all(type(item) is int for item in value):
            return tuple(value)
    if type(value) is hint:
        return value
    raise GlowError(f"{where} is {value!r}; it must be {getattr(hint, '__name__', hint)}.")
