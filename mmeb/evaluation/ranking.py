"""Where the ground truth stands among its candidates."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from mmeb.results.ranks import Ranks

_BLOCK_SCORES = 16_000_000  # scores held at a time: 64 MB in float32; smaller blocks slow the product down


def rank(
    queries: NDArray[np.float32],
    candidates: NDArray[np.float32],
    query_ids: NDArray[np.int32],
    candidate_ids: NDArray[np.int32],
) -> Ranks:
    """Rank the ground truth of each row, which is its first candidate.

    `queries` and `candidates` are unit vectors (n, dim); `query_ids` (n_rows,) and `candidate_ids` (n_rows, width;
    padded with -1) index into them. The rank is 1 + the number of other distinct candidates that score at least as
    high as the ground truth: ties count against the model, copies of the ground truth do not count. Equal vectors
    score exactly equal, and the order of candidates or rows changes nothing.
    """
    # A matrix product may round equal columns differently: each distinct vector gets one column, in an order of its
    # own, so that ties are exact and the order of the data does not matter.
    distinct, column = _distinct_rows(candidates)
    n_rows = len(candidate_ids)
    ranks = Ranks.empty(n_rows)
    block = max(1, _BLOCK_SCORES // len(distinct))
    for start in range(0, n_rows, block):
        rows = slice(start, min(start + block, n_rows))
        products = queries[query_ids[rows]] @ distinct.T
        listed = np.take_along_axis(products, column[candidate_ids[rows]], axis=1)  # (rows, width)
        _rank_block(listed, candidate_ids[rows], len(candidates), ranks, rows)
    return ranks


def _rank_block(
    listed: NDArray[np.float32], candidate_ids: NDArray[np.int32], n_candidates: int, ranks: Ranks, rows: slice
) -> None:
    """Fill `ranks[rows]` from the scores (rows, width) of the candidates in the rows' own lists."""
    truth = listed[:, :1]
    others = _first_occurrences(candidate_ids, n_candidates)
    others &= candidate_ids != candidate_ids[:, :1]
    listed = np.where(candidate_ids < 0, np.float32(-np.inf), listed)
    ranks.rank[rows] = 1 + np.count_nonzero(others & (listed >= truth), axis=1)
    ranks.tied[rows] = np.count_nonzero(others & (listed == truth), axis=1)
    ranks.predicted[rows] = listed.argmax(axis=1)
    ranks.score[rows] = truth[:, 0]
    ranks.runner_up[rows] = listed.max(axis=1, where=others, initial=-np.inf)


def _first_occurrences(candidate_ids: NDArray[np.int32], n_candidates: int) -> NDArray[np.bool_]:
    """Where a row of (rows, width) names a candidate for the first time; false for the padding."""
    n_rows, width = candidate_ids.shape
    lines, positions = np.arange(n_rows)[:, None], np.arange(width)
    first = np.empty((n_rows, n_candidates + 1), dtype=np.int32)  # the padding's -1 is the last column
    first[lines, candidate_ids[:, ::-1]] = positions[::-1]  # of repeated indices the last one assigned stays
    is_first: NDArray[np.bool_] = first[lines, candidate_ids] == positions
    return is_first & (candidate_ids >= 0)


def _distinct_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The distinct rows, in an order of their content alone, and which of them each row of `vectors` is."""
    keys = _as_bytes(vectors[:, :8])
    if len(np.unique(keys)) < len(keys):  # equal beginnings: only the full rows tell
        keys = np.array([hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in vectors], dtype="V16")
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return vectors[first], inverse


def _as_bytes(rows: NDArray[np.float32]) -> NDArray[np.void]:
    """Each row as one value that compares by its bytes."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0]
