"""What `eval.py` found of a run, as a card states it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from glow_jax.config.json import build
from glow_jax.errors import GlowError, shown


@dataclass(frozen=True)
class Measured:
    """Bits/dim of a test split; the names are those of `results.json`.

    Attributes:
        dataset: the name of the data set.
        split: the split.
        images: the number of its images.
        step: that of the weights that were measured.
        averaged_parameters: whether they were averaged.
        bits_per_dim: the mean.
        standard_error: that of the mean.
        dequantization: the kind of the noise, and so of the bound.
        dequantizations: the number of draws of the noise in the average.
        dtype: the dtype that the coupling networks computed in.
        precision: the precision of their convolutions.
        weights_sha256: the digest of the weights that were measured; None in older results.
        reconstruction_images_off: the number of images that encode -> decode does not give back.
        classifier_accuracy: of a conditional model with one class an image, as `LabelFigures`
            tells it, like the next four; None or empty of others.
        classifier_accuracy_standard_error: its standard error.
        likelihood_accuracy: the accuracy of the largest likelihood.
        likelihood_accuracy_standard_error: its standard error.
        class_bits_per_dim: what knowing the class saves.
        label_auroc: of multi-hot labels, in the order of their numbers.
    """

    dataset: str
    split: str
    images: int
    step: int
    averaged_parameters: bool
    bits_per_dim: float
    standard_error: float
    dequantization: str = "uniform"
    dequantizations: int = 1
    dtype: str = "float32"
    precision: str = "highest"
    weights_sha256: str | None = None
    reconstruction_images_off: int = 0
    classifier_accuracy: float | None = None
    classifier_accuracy_standard_error: float | None = None
    likelihood_accuracy: float | None = None
    likelihood_accuracy_standard_error: float | None = None
    class_bits_per_dim: float | None = None
    label_auroc: tuple[float | None, ...] = ()

    @property
    def computed(self) -> list[str]:
        """How the couplings computed, where it was not in float32 at the highest precision."""
        parts = [] if self.dtype == "float32" else [f"in {shown(self.dtype, 40)}"]
        if self.precision != "highest":
            parts.append(f"at precision {shown(self.precision, 40)}")
        return parts

    @property
    def bits_computed(self) -> list[str]:
        """As `computed`, and over how many draws bits/dim were averaged, if over several."""
        draws = self.dequantizations
        return [*self.computed, *([f"averaged over {draws} draws of noise"] if draws != 1 else [])]

    @property
    def accuracies(self) -> list[tuple[str, float, float]]:
        """The rules, the accuracy of each, and its standard error."""
        rows = (
            ("classifier", self.classifier_accuracy, self.classifier_accuracy_standard_error),
            ("likelihood", self.likelihood_accuracy, self.likelihood_accuracy_standard_error),
        )
        return [
            (rule, value, error)
            for rule, value, error in rows
            if value is not None and error is not None
        ]


def measured_of(results: Mapping[str, object]) -> Measured | None:
    """The figures in a run's results; None if they are not what `eval.py` writes."""
    names = {entry.name for entry in fields(Measured)}
    try:
        chosen = {name: value for name, value in results.items() if name in names}
        return build(Measured, chosen, "results")
    except GlowError:
        return None
