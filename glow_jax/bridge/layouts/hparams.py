"""What `hparams.json` says beside the weights: checked against them, or added to them."""

from dataclasses import fields

from glow_jax.bridge.layouts.common import Given
from glow_jax.bridge.reading.settings import stated
from glow_jax.config import ModelConfig
from glow_jax.errors import GlowError, shown

_MOST_BITS = 8

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of whole numbers",
}
"""What a setting must be, by the type of our own value, as it may stand in a message."""


def check_hparams(config: ModelConfig, given: Given, *, permutation_stored: bool) -> None:
    """Compare the architecture in the weights with flags and `hparams.json`.

    Args:
        config: the architecture by keys and shapes.
        given: flags and settings.
        permutation_stored: whether the keys tell the permutation.

    Raises:
        GlowError: they contradict each other.
    """
    height, width, _ = config.image_shape
    if given.image_size is not None and (height, width) != (given.image_size, given.image_size):
        raise GlowError(
            f"--image_size is {given.image_size}, but the weights are for images of {height} x "
            f"{width}."
        )
    if given.flow_permutation not in (None, config.flow_permutation):
        raise GlowError(
            f"--flow_permutation is {given.flow_permutation}, but the weights have "
            f"{config.flow_permutation}."
        )
    hparams = given.hparams or {}
    compared = {"K", "L", "hidden_channels", "flow_permutation", "flow_coupling", "learn_top"}
    compared |= {"y_condition", "image_shape"}
    if permutation_stored:
        compared.add("LU_decomposed")
    if config.y_condition:
        compared.add("y_classes")
    for name in [entry.name for entry in fields(ModelConfig) if entry.name in compared]:
        if name not in hparams:
            continue
        said, found = hparams[name], getattr(config, name)
        if not _is_like(said, found):
            raise GlowError(f"{stated(name, said)}; it must be {KINDS[type(found)]}.")
        if (tuple(said) if isinstance(said, list) else said) != found:
            raise GlowError(
                f"hparams.json says {name} = {shown(said)}, but the weights have {name} = "
                f"{found}: it belongs to another model; correct it or move it away."
            )


def n_bits_of(given: Given, default: int) -> int:
    """The bits kept of each pixel, which no weights tell: by flag, by `hparams.json`, or usual.

    Args:
        given: the flag and the settings.
        default: those of the program that wrote the file.

    Raises:
        GlowError: the settings are out of range, or contradict the flag.
    """
    said = (given.hparams or {}).get("n_bits")
    if said is None:
        return default if given.n_bits is None else given.n_bits
    if isinstance(said, bool) or not isinstance(said, int) or not 1 <= said <= _MOST_BITS:
        raise GlowError(
            f"{stated('n_bits', said)}; it must be a whole number from 1 to {_MOST_BITS}."
        )
    if given.n_bits not in (None, said):
        raise GlowError(
            f"--n_bits is {given.n_bits}, but {stated('n_bits', said)}: leave the flag out, or "
            "correct the file."
        )
    return said


def _is_like(said: object, found: object) -> bool:
    """Whether a value of JSON is of the kind of a value that the weights tell.

    JSON may write 2.0 for 2, and some programs write 0 and 1 for false and true.
    """
    match found:
        case bool():
            return said in (0, 1)
        case int():
            whole = isinstance(said, int) or (isinstance(said, float) and said.is_integer())
            return whole and not isinstance(said, bool)
        case tuple():
            return isinstance(said, list) and all(type(size) is int for size in said)
    return isinstance(said, type(found))
