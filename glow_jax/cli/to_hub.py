"""`python convert/to_hub.py`: a run as a model folder, here or on the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path

from glow_jax.cli.errors import one_line_errors
from glow_jax.cli.flags import parse
from glow_jax.cli.run_flags import RunFlags
from glow_jax.commands import command
from glow_jax.errors import GlowError
from glow_jax.files import check_new_folder
from glow_jax.hub import may_be_replaced
from glow_jax.publishing import (
    UNKNOWN_LICENSE,
    contents_of_run,
    license_in,
    states_results,
    write_contents,
)


@dataclass(frozen=True)
class Arguments(RunFlags):
    """Write a run as a model folder with a model card, and upload it if asked to."""

    output: Path | None = None
    """model folder to write; an earlier model there is replaced"""
    push: str | None = None
    """name on the Hugging Face Hub to upload to: user/name, or your own by the name alone; the
    token is that of `hf auth login`"""
    private: bool = False
    """make the repository private if it is made now (needs push)"""
    license: str | None = None
    """licence of the weights, by an identifier of the hub's such as mit; by default that of the
    model folder that the weights came from, or else unknown"""

    def __post_init__(self) -> None:
        """Check that there is something to do.

        Raises:
            GlowError: neither place is given.
        """
        if self.output is None and self.push is None:
            raise GlowError("Give --output, a folder, or --push, a name on the hub, or both.")
        if self.private and self.push is None:
            raise GlowError("--private is about the repository on the hub: give --push, too.")


@one_line_errors
def main() -> None:
    """Load the run, and write or upload its model folder."""
    arguments = parse(Arguments)
    output = arguments.output
    if output is not None:
        check_new_folder(output, "model folder of glow-jax", may_replace=may_be_replaced)
    run = arguments.load()
    name = str(output)
    if arguments.push is not None:
        from glow_jax.publishing.hub_model import full_name

        name = full_name(arguments.push)
    contents = contents_of_run(run, name=name, license=arguments.license)
    sizes = ", ".join(f"{name} ({len(content):,} bytes)" for name, content in contents.items())
    license = license_in(contents)
    print(f"{run.name}, {run.title}: {sizes}; licence {license}", flush=True)
    if license == UNKNOWN_LICENSE:
        print("note: nobody has stated a licence of the weights: --license does.")
    if not states_results(contents):
        print(
            f"note: its card states no bits/dim: {command('eval')} {run.name} has not measured "
            f"those of {run.title}."
        )
    if output is not None:
        write_contents(output, contents)
        print(f"written to {output}", flush=True)
    if arguments.push is not None:
        from glow_jax.publishing.hub_model import push_contents

        print(push_contents(contents, name, private=arguments.private or None))
