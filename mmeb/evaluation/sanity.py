"""Refuses embeddings that no score may be made of: the reference's argmax gives a constant or NaN model 100%."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmeb.errors import MmebError

COLLAPSED = 0.999  # mean pairwise cosine of distinct items above which they are all but one vector


def check_embeddings(vectors: NDArray[np.float32], what: str) -> dict[str, Any]:
    """Refuse broken embeddings; return their statistics for the provenance.

    `vectors` (n, dim) are those of distinct items; `what` names them ("ImageNet-1K: the queries"). Raises MmebError
    for a non-finite or zero vector, and for a collapsed set.
    """
    if bad := int(np.count_nonzero(~np.isfinite(vectors).all(axis=1))):
        raise MmebError(f"{what}: {bad} of {len(vectors)} embeddings hold NaN or infinity; no score is made of them.")
    norms = np.linalg.norm(vectors, axis=1)
    if bad := int(np.count_nonzero(norms < 1e-6)):
        raise MmebError(f"{what}: {bad} of {len(vectors)} embeddings are zero; no score is made of them.")
    cosine = mean_pairwise_cosine(vectors / norms[:, None])
    if cosine is not None and cosine > COLLAPSED:
        raise MmebError(
            f"{what}: the embeddings are collapsed (mean pairwise cosine {cosine:.5f} over {len(vectors)} distinct "
            "items); the model does not tell items apart, so no score is made of them."
        )
    return {"count": len(vectors), "mean_pairwise_cosine": cosine, "mean_norm": float(norms.mean())}


def mean_pairwise_cosine(unit_vectors: NDArray[np.float32]) -> float | None:
    """Mean cosine over all pairs of different rows of (n, dim); None for fewer than two rows."""
    n = len(unit_vectors)
    if n < 2:
        return None
    total = float(np.square(unit_vectors.sum(axis=0, dtype=np.float64)).sum())
    own = float(np.square(unit_vectors, dtype=np.float64).sum())
    return (total - own) / (n * (n - 1))
