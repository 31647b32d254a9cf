"""Runs of glow_jax as Glow-PyTorch's weights, optimizer's state and settings."""

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import torch
from flax import nnx

from glow_jax.bridge import moments
from glow_jax.bridge.checkpoint_file import HPARAMS
from glow_jax.bridge.mapping import from_glow
from glow_jax.config import Config, ModelConfig
from glow_jax.errors import GlowError
from glow_jax.files import aside_of, write_new, writing
from glow_jax.model import Glow
from glow_jax.runs import LoadedRun, load_optimizer_state
from glow_jax.training.optimizer import make_optimizer

_THEIR_SETTINGS = [
    "K",
    "L",
    "LU_decomposed",
    "actnorm_scale",
    "augment",
    "batch_size",
    "cuda",
    "dataroot",
    "dataset",
    "download",
    "epochs",
    "eval_batch_size",
    "flow_coupling",
    "flow_permutation",
    "hidden_channels",
    "learn_top",
    "lr",
    "max_grad_clip",
    "max_grad_norm",
    "n_init_batches",
    "n_workers",
    "output_dir",
    "saved_model",
    "saved_optimizer",
    "seed",
    "warmup",
    "y_condition",
    "y_weight",
]
_OPTIMIZER = "optimizer.pt"
# Ours name run folders, theirs name PyTorch files: one is no use to the other program.
_OUR_PATHS = {"saved_model": "", "saved_optimizer": ""}


@dataclasses.dataclass(frozen=True)
class Export:
    """The files that Glow-PyTorch loads, in memory.

    Attributes:
        step: the number of updates behind the weights.
        contents: what each file holds, by its path.
        notes: what is left out, one sentence each.
    """

    step: int
    contents: dict[Path, bytes]
    notes: list[str]

    def write(self) -> None:
        """Write all files, or none where one of them cannot be written.

        A file of settings that is there already and has the same content stays as it is.

        Raises:
            GlowError: a file is there already.
            OSError: a file cannot be written.
        """
        new = {}
        for path, content in self.contents.items():
            if not path.exists():
                new[path] = content
            elif path.name != HPARAMS or path.read_bytes() != content:
                raise GlowError(f"{path} exists; move it away or give another --output.")
        for path in new:
            path.parent.mkdir(parents=True, exist_ok=True)
        aside = {path: aside_of(path) for path in new}
        there: list[Path] = []
        try:
            for path, content in new.items():
                with writing(path):
                    write_new(aside[path], content)
            for path in new:
                with writing(path):
                    aside[path].rename(path)
                there.append(path)
        except BaseException:
            for path in there:
                path.unlink(missing_ok=True)
            raise
        finally:
            for path in aside.values():
                path.unlink(missing_ok=True)


def export_run(run: LoadedRun, output: Path, *, average: bool = False) -> Export:
    """Serialise a run for Glow-PyTorch; nothing is written.

    Args:
        run: the loaded run.
        output: the file of the weights, as `check_output` allows; the optimizer's state and the
            settings go beside it.
        average: export the averaged parameters, without the optimizer's state.

    Raises:
        GlowError: the run keeps no average, or does not fit Glow-PyTorch.
    """
    if average and run.average is None:
        raise GlowError(f"{run.name} keeps no averaged parameters: leave --average out.")
    model = run.average if average and run.average is not None else run.model
    hparams = json.dumps(to_hparams(run.config), indent=4, sort_keys=True) + "\n"
    contents = {output: _serialise(to_state_dict(model))}
    notes, algorithm = [], run.config.optimizer.optimizer
    if run.config.model.dequantization == "variational":
        notes.append(
            "The dequantisation flow is left out: Glow-PyTorch's noise is uniform, for which the "
            "exported flow was not trained."
        )
    if run.average is run.model:
        notes.append(f"These are averaged parameters: {run.name} holds no others.")
    if average:
        notes.append("The optimizer's state is left out: it belongs to the trained parameters.")
    elif not run.has_optimizer:
        notes.append(f"The optimizer's state is left out: step {run.step} was saved without one.")
    elif algorithm == "openai_adamax":
        notes.append(f"The optimizer's state is left out: PyTorch has no {algorithm}.")
    else:
        state = _optimizer_state_dict(run, algorithm)
        contents[output.with_name(_OPTIMIZER)] = _serialise(state)
    if run.config.optimizer.schedule == "cosine":
        notes.append("The cosine schedule is left out: Glow-PyTorch's rate stays at lr.")
    contents[output.with_name(HPARAMS)] = hparams.encode()
    return Export(run.step, contents, notes)


def check_output(output: Path) -> None:
    """Refuse a name for the weights that is no file's, or another exported file's.

    Raises:
        GlowError: the name will not do.
    """
    if output.name in ("", "..") or output.is_dir():
        raise GlowError(
            f"--output is {str(output)!r}; it must name the file of the weights, for example "
            "export/glow.pt."
        )
    if output.name.casefold() in (_OPTIMIZER, HPARAMS):
        raise GlowError(
            f"--output is {str(output)!r}; {output.name} is written beside the weights, which need "
            "another name, for example glow.pt."
        )
    if any(parent.is_file() for parent in output.parents):
        raise GlowError(f"{output} would lie below a file; give another --output.")


def to_state_dict(model: Glow) -> dict[str, torch.Tensor]:
    """The weights as Glow-PyTorch's `load_state_dict(strict=True)` takes them.

    Those of a dequantisation flow are left out.

    Raises:
        GlowError: Glow-PyTorch's layout cannot hold the model.
    """
    check_fits(model.config)
    return {key: torch.from_numpy(value) for key, value in from_glow(model).items()}


def check_fits(config: ModelConfig) -> None:
    """Refuse a model that Glow-PyTorch would load as a different one.

    Raises:
        GlowError: names the reason.
    """
    reasons = {
        "its last convolutions pad with ones (padding), and theirs with zeros": (
            config.padding == "ones"
        ),
        "its 3x3 convolutions have an edge bias (padding), and theirs none": (
            config.padding == "edge_bias"
        ),
        f"its actnorms' logs count {config.actnorm_logs_factor:g} times, and theirs once": (
            config.actnorm_logs_factor != 1
        ),
        "it is conditional without a classifier, and theirs always have one": (
            config.y_condition and not config.classifier
        ),
        "it is LU-decomposed in some levels only (plain_levels), and theirs in all or none": bool(
            config.plain_levels
        ),
        f"it models {config.n_bits}-bit images, and theirs 8-bit ones": config.n_bits != 8,
        "the orders of its shuffle permutations have no place in their files": (
            config.flow_permutation == "shuffle"
        ),
        "its labels are multi-hot (multi_class), and theirs one-hot": config.multi_class,
    }
    for reason, applies in reasons.items():
        if applies:
            raise GlowError(f"Glow-PyTorch cannot hold this model: {reason}.")


def to_hparams(config: Config) -> dict[str, object]:
    """Glow-PyTorch's `hparams.json`: one flat object of settings."""
    sections = (config.model, config.data, config.optimizer, config.training, config.output)
    ours: dict[str, object] = {}
    for section in sections:
        ours |= dataclasses.asdict(section)
    ours |= _OUR_PATHS
    return {name: ours[name] for name in _THEIR_SETTINGS}


def _optimizer_state_dict(run: LoadedRun, algorithm: moments.Algorithm) -> moments.StateDict:
    """The state of the run's optimizer, as PyTorch's."""
    params = nnx.state(run.model, nnx.Param)
    target = jax.eval_shape(make_optimizer(run.config.optimizer, 1).init, params)
    state = load_optimizer_state(run.folder, target, run.step)
    ours = moments.from_optax(state, run.config.model, algorithm, run.config.optimizer.lr)
    return moments.to_state_dict(ours, run.config)


def _serialise(values: Mapping[str, object]) -> bytes:
    file = io.BytesIO()
    torch.save(values, file)
    return file.getvalue()
