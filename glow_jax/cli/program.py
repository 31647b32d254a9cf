"""`glow-jax COMMAND ...`: the scripts of the repository and more, as one installed program."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import glow_jax
from glow_jax.cli.start import CLOSED_PIPE, discard, start
from glow_jax.commands import PROGRAM


class Command(NamedTuple):
    """A command: the module of `glow_jax.cli` that carries it out, and what it does."""

    module: str
    what: str


COMMANDS = {
    "train": Command("train", "train a Glow"),
    "eval": Command("evaluate", "bits/dim of a run, and scores out of distribution"),
    "sample": Command("sample", "draw images from a run"),
    "directions": Command("directions", "directions in the latent space of a run"),
    "walk": Command("walk", "a short video of a walk through latent space"),
    "demo": Command("demo", "a local page: draw, look at pictures, edit them"),
    "convert from-torch": Command("from_torch", "a PyTorch checkpoint to a run"),
    "convert from-openai": Command("from_openai", "openai/glow's checkpoint to a run"),
    "convert to-torch": Command("to_torch", "a run to a PyTorch checkpoint"),
    "convert to-hub": Command("to_hub", "a run to a model folder, or to the Hugging Face Hub"),
    "convert from-hub": Command("from_hub", "a model folder, or a model of the hub, to a run"),
    "export": Command("export", "a run to jax.export programs and ONNX models"),
}


def main() -> None:
    """Run the command that the command line names; the others are not imported."""
    words = sys.argv[1:]
    if words[:1] in (["--version"], ["-V"]):
        _print_version()
        return
    group = ["convert"] if words[:1] == ["convert"] else []
    if words[len(group) :] in ([], ["--help"], ["-h"]):
        _print_until_closed(_help(*group))
        return
    name = _named(words)
    if name is None:
        asked = " ".join(words[: 2 if words[0] == "convert" else 1])
        print(
            f"error: {asked!r:.200} is no command; {PROGRAM} --help lists the commands.",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.argv = [f"{PROGRAM} {name}", *words[len(name.split()) :]]
    start(COMMANDS[name].module)


def _print_until_closed(text: str) -> None:
    """Print; end without a word if the reader of the output has gone, as the commands do."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard(sys.stdout)
        sys.exit(CLOSED_PIPE)


def _named(words: Sequence[str]) -> str | None:
    """The command that a line begins with; its words may be spelt with underscores."""
    spelt = [word.replace("_", "-") for word in words]
    for name in COMMANDS:
        parts = name.split()
        if spelt[: len(parts)] == parts:
            return name
    return None


def _print_version() -> None:
    """Print the version, which an installed package alone has."""
    try:
        print(f"{PROGRAM} {glow_jax.__version__}")
    except AttributeError as error:
        print(f"error: {error}; pip install it.", file=sys.stderr)
        sys.exit(2)


def _help(group: str = "") -> str:
    """The commands of a group, without its name; by default all."""
    start = f"{group} " if group else ""
    names = [name for name in COMMANDS if name.startswith(start)]
    rows = [f"  {name.removeprefix(start):<21} {COMMANDS[name].what}" for name in names]
    usage = f"{PROGRAM} {start}COMMAND"
    more = f"{usage} --help lists the flags of a command."
    return "\n".join([f"usage: {usage} ...", "", *rows, "", more])
