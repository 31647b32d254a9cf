"""Write a run as files that Glow-PyTorch loads: weights, optimizer's state and settings.

python convert/to_torch.py runs/mine --output export/glow.pt
"""

import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import torch
import tyro

from glow_jax.bridge import optimizer
from glow_jax.bridge.files import HPARAMS
from glow_jax.bridge.mapping import from_glow
from glow_jax.cli.flags import one_line_errors, parse
from glow_jax.config import Config, ModelConfig
from glow_jax.errors import GlowError
from glow_jax.files import write_whole
from glow_jax.model import Glow, take_apart
from glow_jax.runs.checkpoint import LoadedRun, load_optimizer_state, load_run
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
# Ours name run folders; theirs name files of theirs.
_OUR_PATHS = {"saved_model": "", "saved_optimizer": ""}


def to_state_dict(model: Glow) -> dict[str, torch.Tensor]:
    """The weights as Glow-PyTorch's `load_state_dict(strict=True)` takes them.

    Raises:
        GlowError: their layout cannot hold the model.
    """
    check_fits(model.config)
    return {key: torch.from_numpy(value) for key, value in from_glow(model).items()}


def check_fits(config: ModelConfig) -> None:
    """Refuse what Glow-PyTorch could only load as another model.

    Raises:
        GlowError: names the reason.
    """
    reasons = {
        "its last convolutions pad with ones (pad_ones), and theirs with zeros": config.pad_ones,
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


def to_hparams(config: Config) -> dict[str, Any]:
    """Their `hparams.json`: one flat list of settings."""
    sections = (config.model, config.data, config.optimizer, config.training, config.output)
    ours: dict[str, Any] = {}
    for section in sections:
        ours |= dataclasses.asdict(section)
    ours |= _OUR_PATHS
    return {name: ours[name] for name in _THEIR_SETTINGS}


@dataclass(frozen=True)
class Arguments:
    """Write a run as files that Glow-PyTorch loads."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder"""
    output: Path
    """file of the weights; optimizer.pt and hparams.json are written beside it"""
    step: int | Literal["best"] | None = None
    """checkpoint: a step's number, or best on the validation split; the newest if left out"""
    average: bool = False
    """write the averaged parameters of a run with ema_decay, without the optimizer's state"""


@one_line_errors
def main() -> None:
    """Load the run, write the three files."""
    arguments = parse(Arguments)
    run = load_run(arguments.run, arguments.step)
    if arguments.average and run.average is None:
        raise GlowError(f"{arguments.run} keeps no averaged parameters: leave --average out.")
    model = run.average if arguments.average and run.average is not None else run.model
    hparams = json.dumps(to_hparams(run.config), indent=4, sort_keys=True) + "\n"
    output = arguments.output
    contents = {output: _serialise(to_state_dict(model))}
    notes = []
    if arguments.average:
        notes.append("The optimizer's state is left out: it belongs to the trained parameters.")
    elif run.has_optimizer:
        state = _optimizer_state_dict(run, arguments.run)
        contents[output.with_name("optimizer.pt")] = _serialise(state)
    else:
        notes.append(f"The optimizer's state is left out: step {run.step} was saved without one.")
    beside = output.with_name(HPARAMS)
    contents[beside] = hparams.encode()
    if any(parent.is_file() for parent in output.parents):
        raise GlowError(f"{output} would lie below a file; give another --output.")
    for path, content in contents.items():
        if path.exists() and not (path == beside and path.read_bytes() == content):
            raise GlowError(f"{path} exists; move it away or give another --output.")
    output.parent.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        write_whole(path, content)
    print(f"{arguments.run}, step {run.step}, written to {', '.join(map(str, contents))}")
    print("\n".join(notes), end="\n" if notes else "")


def _optimizer_state_dict(run: LoadedRun, folder: Path) -> dict[str, Any]:
    """The optimizer's state of a run, as PyTorch's.

    Raises:
        GlowError: the run has none.
    """
    params = take_apart(run.model).params
    target = jax.eval_shape(make_optimizer(run.config.optimizer, 1).init, params)
    state = load_optimizer_state(folder, target, run.step)
    moments = optimizer.from_optax(state, run.config.model, run.config.optimizer)
    return optimizer.to_state_dict(moments, run.config)


def _serialise(values: Any) -> bytes:
    file = io.BytesIO()
    torch.save(values, file)
    return file.getvalue()


if __name__ == "__main__":
    main()
