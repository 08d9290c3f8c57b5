"""Where a model's files are."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: `source` as named (hub id or folder), `revision` the commit of a hub repository.

    `name` is what the user called the model. `base` is the model under a LoRA, whose adapter then lies in `path`; None
    for a whole model.
    """

    name: str
    source: str
    path: Path
    revision: str | None = None
    base: "Checkpoint | None" = None
