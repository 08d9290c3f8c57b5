"""The tools that a benchmark compares with, and whether they compute the same vectors.

They are installed for the benchmarks alone and use this environment's torch and transformers:

    python -m benchmarks.support.peers [FOLDER]
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path.home() / ".cache" / "mmeb" / "benchmark-peers"
# What the two need and this environment may lack is named too, since nothing else is resolved.
PACKAGES = {
    "mteb": "mteb==2.26.24",
    "sentence_transformers": "sentence-transformers==6.2.0",
    "sklearn": "scikit-learn>=1.4",
    "joblib": "joblib",
    "cloudpickle": "cloudpickle",
    "threadpoolctl": "threadpoolctl",
    "narwhals": "narwhals",
    "polars": "polars",
    "_polars_runtime_32": "polars-runtime-32",
    "pytrec_eval": "pytrec-eval-terrier",
}


def add_peers(folder: Path = FOLDER) -> None:
    """Make the peers importable, behind all that is installed; what is missing in `folder` is fetched."""
    missing = [name for module, name in PACKAGES.items() if not (folder / module).exists()]
    missing = [name for name in missing if name != "threadpoolctl" or not (folder / "threadpoolctl.py").exists()]
    if missing:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *missing]
        subprocess.run(command, check=True)
    sys.path.append(str(folder))


def agreement(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The least cosine of two vectors of an item, after the mean over all items is taken off; both are (n, dim)."""
    centred = [one - one.mean(axis=0) for one in (vectors, reference)]
    lengths = np.linalg.norm(centred[0], axis=1) * np.linalg.norm(centred[1], axis=1)
    return float(((centred[0] * centred[1]).sum(axis=1) / lengths).min())


if __name__ == "__main__":
    add_peers(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
