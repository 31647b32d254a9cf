"""Where a data set is read, and where its decoded images may be written."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from glow_jax.files import expanded, user_cache


@dataclass(frozen=True)
class Places:
    """The folders of a data set.

    Attributes:
        dataroot: the folder where data sets live.
        read_only: whether a run folder names `dataroot`, and not the user: a stranger may have
            written it, so that nothing is written there.
    """

    dataroot: str
    read_only: bool = False

    @property
    def root(self) -> Path:
        """`dataroot` as a path."""
        return expanded(self.dataroot, "dataroot")

    @property
    def decoded(self) -> Path | None:
        """Where decoded images are kept; None if nowhere."""
        if not self.read_only:
            return self.root / "decoded"
        cache = user_cache()
        if cache is None:
            return None
        digest = hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:16]
        return cache / "decoded" / digest

    @property
    def decoded_to_read(self) -> list[Path]:
        """Where decoded images may have been kept: reading them is harmless."""
        return [self.root / "decoded", *([self.decoded] if self.read_only and self.decoded else [])]
