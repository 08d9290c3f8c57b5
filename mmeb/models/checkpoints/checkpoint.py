"""Where a model's files are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: `source` as named (hub id or folder), `path` the folder with its files.

    `revision` is the commit of a hub repository, or a hash over a folder's content (`sha256:…`); `name` is what the
    user called the model. `base` is what a LoRA stands on; None for a whole model.
    """

    name: str
    source: str
    path: Path
    revision: str | None = None
    base: "Checkpoint | None" = None

    @property
    def provenance(self) -> dict[str, Any]:
        """What every adapter's provenance says of its checkpoint."""
        base = {"base": self.base.source, "base_revision": self.base.revision} if self.base else {}
        return {"name": self.name, "checkpoint": self.source, "revision": self.revision, **base}
