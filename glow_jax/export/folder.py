"""Exporting a run: every program in every format, each file proved before it is kept."""

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import jax
from flax import nnx

from glow_jax.errors import GlowError, first_line
from glow_jax.export import as_jax, as_onnx
from glow_jax.export.frozen import frozen
from glow_jax.export.programs import Format, Program, programs_of
from glow_jax.export.proof import BATCHES, TOLERANCE, Proof
from glow_jax.files import check_new_folder, whole_folder, write_json, write_new, writing
from glow_jax.model import Glow, computing, parameter_count
from glow_jax.runs import LoadedRun

MANIFEST = "export.json"
"""What describes the files, beside them."""

# Both formats count the bytes of a file in 31 bits. The program itself takes a few megabytes.
_MOST_BYTES = 2**31 - 2**26

FORMATS: tuple[Format, ...] = (as_jax.FORMAT, as_onnx.FORMAT)


@dataclass(frozen=True)
class Exported:
    """What became of each file.

    Attributes:
        folder: where the files are.
        written: the largest differences of each kept file's outputs from the model's own numbers.
        refused: a sentence for each file that was not kept.
    """

    folder: Path
    written: dict[str, dict[str, float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def export_programs(run: LoadedRun, output: Path) -> Exported:
    """Write a run's model as programs, and `export.json`, which describes them.

    Every file is read back and run before it is kept. Its numbers may differ from the model's own
    by 1e-4, of a number above 1 as a share of it. The coupling networks compute in float32 at the
    highest precision, however the run was trained. The folder appears when everything is in it.

    Args:
        run: the run; of averaged parameters and trained ones, the averaged ones.
        output: the folder to make; it may be there if it is empty.

    Raises:
        GlowError: no folder can be made at this place, or no file could be written.
        OSError: the folder cannot be written.
    """
    check_new_folder(output, "folder of programs")
    model = computing(run.average_or_model, dtype="float32", precision="highest")
    with writing(output), whole_folder(output) as aside:
        aside.mkdir()
        export = _write_files(model, aside, output)
        if not export.written:
            reasons = "; ".join(sorted(set(export.refused.values())))
            raise GlowError(f"{run.name} cannot be exported: {reasons}")
        write_json(aside / MANIFEST, _manifest(run, export, aside))
    return export


def _write_files(model: Glow, folder: Path, output: Path) -> Exported:
    """Write and prove every file in `folder`, which will be at `output`."""
    export, programs = Exported(output), programs_of(model.config)
    proof, inference = Proof(model, programs), frozen(model)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(inference)))
    for form in FORMATS:
        reason = _hindrance(form, size)
        for program in programs:
            name = f"{program.name}.{form.suffix}"
            path = folder / name
            try:
                if reason is not None:
                    raise GlowError(reason)
                write_new(path, _serialised(form, program, inference))
                export.written[name] = _proved(form, program, path, proof)
            except GlowError as error:
                path.unlink(missing_ok=True)
                export.refused[name] = str(error)
    return export


def _hindrance(form: Format, size: int) -> str | None:
    """Why no file of a format can be written for weights of so many bytes, if so."""
    for library in form.libraries:
        if not _is_installed(library):
            return f"{library} is not installed: {form.install}."
    if size > _MOST_BYTES:
        return f"the weights take {size / 1e9:.1f} GB, and a file holds at most 2.1 GB."
    return None


def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _serialised(form: Format, program: Program, model: Glow) -> bytes:
    try:
        return form.serialise(program, model)
    except Exception as error:  # another library's, for whatever it cannot convert
        raise GlowError(f"{form.libraries[0]} cannot convert it: {first_line(error)}.") from error


def _proved(form: Format, program: Program, path: Path, proof: Proof) -> dict[str, float]:
    """The largest differences of a file's outputs from the model's own numbers.

    Raises:
        GlowError: it cannot be run, or one of them is larger than the tolerance.
    """
    try:
        found = proof.differences(program, lambda inputs: form.run(path, program, inputs))
    except Exception as error:  # another library's
        raise GlowError(f"{form.libraries[-1]} cannot run it: {first_line(error)}.") from error
    for name, difference in found.items():
        if not difference <= TOLERANCE:
            raise GlowError(
                f"its {name} differs from the model's own by {difference:.1e}, more than "
                f"{TOLERANCE:g}."
            )
    return found


def _manifest(run: LoadedRun, export: Exported, folder: Path) -> dict[str, object]:
    config = run.config.model
    used = {library for form in FORMATS for library in form.libraries if _is_installed(library)}

    def about(path: Path, differences: Mapping[str, float]) -> dict[str, object]:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return {"bytes": len(content), "sha256": digest, "largest_differences": differences}

    return {
        "exported_by": {name: version(name) for name in sorted({"glow-jax", *used})},
        "step": run.step,
        "averaged_parameters": run.average is not None,
        "parameters": parameter_count(run.model),
        "image_shape": config.image_shape,
        "n_bits": config.n_bits,
        "classes": config.y_classes if config.y_condition else 0,
        "programs": {
            program.name: {
                "inputs": [port._asdict() for port in program.inputs],
                "outputs": [port._asdict() for port in program.outputs],
            }
            for program in programs_of(config)
        },
        "tolerance": TOLERANCE,
        "batch_sizes_tried": BATCHES,
        "files": {name: about(folder / name, found) for name, found in export.written.items()},
        "refused": export.refused,
    }
