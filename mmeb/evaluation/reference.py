"""Reference vectors: what a model made of the probes once, to be compared with what it makes of them now."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmeb.errors import MmebError
from mmeb.evaluation.probes import fingerprint, probes
from mmeb.evaluation.provenance import hardware, library_versions, now
from mmeb.files import replacing
from mmeb.models.base import EmbeddingModel

_KEY = "mmeb_reference"  # of the safetensors header; its value is JSON
# Of the provenance: what a comparison with a reference tests, and names of equal files in another place.
_MAY_DIFFER = {"dtype", "name", "checkpoint"}


@dataclass(frozen=True)
class Reference:
    """Unit vectors of all probes, float32 (n, dim), and what made them: `origin` is JSON."""

    path: Path
    vectors: NDArray[np.float32]
    origin: dict[str, Any]

    @property
    def changed(self) -> list[str]:
        """What is not as it was when the vectors were made: "transformers 5.1.0 → 5.23.0"."""
        then, today = self.origin.get("libraries", {}), library_versions()
        names = sorted(name for name in then.keys() | today.keys() if then.get(name) != today.get(name))
        return [f"{name} {then.get(name, 'missing')} → {today.get(name, 'missing')}" for name in names]

    def require(self, model: EmbeddingModel) -> None:
        """Raises MmebError where the vectors are of another model, other options or other probes."""
        if self.origin.get("probes") != fingerprint():
            raise MmebError(
                f"{self.path} was made with other items, by another version of mmeb: `mmeb verify --save-reference` "
                "makes a new one."
            )
        ours, theirs = _comparable(model.provenance), _comparable(self.origin["model"])
        if differing := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
            key = differing[0]
            raise MmebError(
                f"{self.path} is not of this model: its {key} is {theirs.get(key)!r}, here it is {ours.get(key)!r}."
            )
        if self.vectors.shape != (shape := (len(probes()), model.dim)):
            raise MmebError(f"{self.path} holds vectors of shape {self.vectors.shape}, this model's have {shape}.")


def save_reference(path: Path, model: EmbeddingModel, vectors: NDArray[np.float32]) -> None:
    """Write the probes' unit vectors (n, dim) with the model's provenance, as safetensors."""
    origin = {
        "probes": fingerprint(),
        "model": model.provenance,
        "libraries": library_versions(),
        "hardware": hardware(model),
        "made": now(),
    }
    with replacing(path) as temporary:
        save_file({"vectors": np.ascontiguousarray(vectors)}, temporary, metadata={_KEY: json.dumps(origin)})


def load_reference(path: Path) -> Reference:
    """Raises MmebError for a file that is missing, damaged or something else."""
    try:
        with safe_open(path, framework="numpy") as file:
            return Reference(path, file.get_tensor("vectors"), json.loads((file.metadata() or {})[_KEY]))
    except FileNotFoundError:
        raise MmebError(f"There is no reference file {path}: `mmeb verify --save-reference` makes one.") from None
    except (SafetensorError, KeyError, OSError, ValueError):
        raise MmebError(f"{path} holds no reference vectors: `mmeb verify --save-reference` makes them.") from None


def _comparable(provenance: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(provenance))  # tuples become lists, as in the file
    return {key: value for key, value in plain.items() if key not in _MAY_DIFFER}
