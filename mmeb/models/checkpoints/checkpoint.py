"""Where a model's files are, and what its folder says of itself in `mmeb.json`. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmeb.errors import MmebError

WEIGHTS = ("model", "pytorch_model")  # the stems of weight files that transformers writes
MANIFEST = "mmeb.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: `source` as named (hub id or folder), `path` the folder with its files.

    `revision` is the commit of a hub repository, or a hash over a folder's content (`sha256:…`); `name` is what the
    user called the model. `base` is the model under a LoRA; None for a full model.
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


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a trained model's folder, None where there is none. Raises MmebError for a broken one."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MmebError(f"{path} can't be read ({error}): copy the model again, or delete that file.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("adapter"), str):
        raise MmebError(f"{path} names no adapter: copy the model again, or delete that file.")
    if not isinstance(manifest.get("options", {}), Mapping):
        raise MmebError(f"The options in {path} are no mapping: copy the model again, or delete that file.")
    return manifest


def options_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The adapter's options with which the model was trained, as `--option` takes them."""
    return {str(name): str(value) for name, value in manifest.get("options", {}).items()}
