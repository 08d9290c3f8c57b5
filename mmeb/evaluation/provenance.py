"""What a run was made of, so that its numbers can be traced."""

import datetime
import importlib.metadata
import platform
from typing import Any

import torch

from mmeb.data.part import DataSource
from mmeb.models.base import EmbeddingModel

# The libraries that affect scores: decoding and resizing, tokenising, the forward pass, adapters.
_LIBRARIES = (
    "mmeb",
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "pillow",
    "numpy",
    "peft",
    "open_clip_torch",
)


def library_versions() -> dict[str, str]:
    """Version by distribution name, of the libraries that are installed."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def run_identity(model: EmbeddingModel, source: DataSource, limit: int | None) -> dict[str, Any]:
    """All that affects a score: a run is resumed only where this is equal."""
    return {
        "model": {"name": model.name, "dim": model.dim, **model.provenance},
        "data": {"kind": source.kind, "repository": source.repository, "revision": source.revision},
        "limit": limit,
        "libraries": library_versions(),
    }


def hardware(model: EmbeddingModel) -> dict[str, Any]:
    """The machine, as far as it may explain a difference of rounding."""
    facts: dict[str, Any] = {
        "device": str(model.device),
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if model.device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(model.device)
        facts["cuda"] = torch.version.cuda
    return facts


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
