"""A checkpoint before it is written to disk."""

from dataclasses import dataclass, field


@dataclass
class Sample:
    """A checkpoint on its way to a case.

    Attributes:
        files: the content of each file, by name; all lie in one folder.
        name: the file that is converted.
        options: further arguments of `convert`; those named `optimizer` are names of files.
        damage: what was done to it so far.
    """

    files: dict[str, bytes]
    name: str
    options: dict[str, object] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
