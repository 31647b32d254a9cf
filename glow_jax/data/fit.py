"""Whether the images and labels of a data set are what a model takes."""

from glow_jax.config import ModelConfig
from glow_jax.data.dataset import Dataset, Pictures, has_labels
from glow_jax.errors import GlowError


def check_fits(model: ModelConfig, dataset: Dataset, *, source: str = "", advice: str = "") -> None:
    """Check that a model can be trained or evaluated on a data set.

    Args:
        model: the model's configuration.
        dataset: the images and labels.
        source: what messages call a model that has weights already, such as its run folder. Empty
            for a new model, which takes its image shape and its number of classes from the data
            set.
        advice: what to do about images of another shape; it ends that message.

    Raises:
        GlowError: the shape of the images, or the number or the kind of classes, is not the
            model's.
    """
    if source:
        check_image_shape(model, dataset.train, name=dataset.name, source=source, advice=advice)
        if model.y_condition and dataset.classes != model.y_classes:
            raise GlowError(
                f"{source} is conditional on {model.y_classes} classes; {dataset.name} has "
                f"{dataset.classes}."
            )
    if model.y_condition and not dataset.classes:
        raise GlowError(f"{dataset.name} has no labels: leave out --y_condition.")
    if model.y_condition and dataset.multi_hot != model.multi_class:
        kind, verb = ("multi-hot", "give") if dataset.multi_hot else ("one class", "leave out")
        what_follows = f"; {source} takes the other kind" if source else f": {verb} --multi_class"
        raise GlowError(f"The labels of {dataset.name} are {kind} per image{what_follows}.")
    if model.y_condition and not has_labels(dataset.test):
        raise GlowError(
            f"The test images of {dataset.name} have no labels: sort them into folders of their "
            "classes, or leave out --y_condition."
        )


def check_image_shape(
    model: ModelConfig, pictures: Pictures, *, name: str, source: str, advice: str = ""
) -> None:
    """Check that images have the shape that a model takes.

    Args:
        model: the model's configuration.
        pictures: the images.
        name: what messages call their data set.
        source: what messages call the model.
        advice: what to do about another shape; it ends the message.

    Raises:
        GlowError: they have another shape.
    """
    if pictures.image_shape != model.image_shape:
        what_to_do = f": {advice}" if advice else ""
        raise GlowError(
            f"{source} takes images of {model.image_shape}; those of {name} are "
            f"{pictures.image_shape}{what_to_do}."
        )
