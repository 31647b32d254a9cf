"""What the commands that convert checkpoints share: what they print, the proof."""

from pathlib import Path
from typing import TYPE_CHECKING

from glow_jax.commands import command
from glow_jax.config.wording import architecture, image_format
from glow_jax.errors import GlowError
from glow_jax.model import parameter_count

if TYPE_CHECKING:
    from glow_jax.bridge.conversion import Conversion


def memory_in_bytes(gigabytes: float | None) -> int:
    """The bytes that a file may take, from --memory_limit.

    Raises:
        GlowError: it is no number of gigabytes above 0.
    """
    from glow_jax.bridge.reading.budget import DEFAULT_LIMIT, GIGABYTE

    if gigabytes is None:
        return DEFAULT_LIMIT
    if not 0 < gigabytes < 1e6:
        raise GlowError(f"--memory_limit is {gigabytes}; it must be a number of gigabytes above 0.")
    return int(gigabytes * GIGABYTE)


def finish(file: Path, conversion: "Conversion", output: Path, *, memory: int, check: bool) -> None:
    """Describe a conversion, prove it, and write its run folder.

    Args:
        file: what was converted.
        conversion: the result.
        output: the run folder to write.
        memory: the bytes that the proof may take.
        check: whether to prove it.

    Raises:
        GlowError: the proof fails, or the folder cannot be written.
    """
    print(f"{file}\n{_describe(conversion)}", flush=True)
    if check:
        _prove(file, conversion, memory)
    conversion.save(output)
    dataset = conversion.config.data.dataset if conversion.names_images else "DATA"
    raw = "" if conversion.average is None else " --no_average"
    print(f"written to {output}: {command('eval')} {output} --dataset {dataset}{raw}")


def _prove(file: Path, conversion: "Conversion", memory: int) -> None:
    """Print the proof of a conversion.

    Raises:
        GlowError: the proof fails.
    """
    from glow_jax.bridge.proof import prove

    title = "largest differences from PyTorch on 4 random images, by products and by convolutions:"
    proofs = {title: (conversion.model, conversion.values)}
    if conversion.average is not None and conversion.average_values is not None:
        proofs["the same of the average:"] = (conversion.average, conversion.average_values)
    for title, (model, values) in proofs.items():
        print(title)
        figures = prove(model, values, memory)
        for figure in figures:
            print(f"  {figure}", flush=True)
        if not all(figure.holds for figure in figures):
            raise GlowError(
                f"{file} is not converted: JAX and PyTorch differ by more than float32 explains, "
                "or by more than would go unseen; --no_check converts it anyway."
            )


def _describe(conversion: "Conversion") -> str:
    model = conversion.config.model
    lines = [
        f"layout        {conversion.layout}",
        f"architecture  {architecture(model)}",
        f"images        {image_format(model)}",
        f"parameters    {parameter_count(conversion.model):,}",
    ]
    if conversion.average is not None:
        lines.append("average       of the parameters, beside them")
    if conversion.optimizer_state is not None:
        kind = conversion.config.optimizer.optimizer
        lines.append(f"optimizer     {kind}, after {conversion.step} updates")
    return "\n".join([*lines, *(f"note          {note}" for note in conversion.notes)])
