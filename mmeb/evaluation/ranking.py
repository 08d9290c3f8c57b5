"""Where the ground truth stands among its candidates."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from mmeb.results.ranks import Ranks

_BLOCK_SCORES = 4_000_000  # scores held at a time: 16 MB in float32


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
    block = max(1, _BLOCK_SCORES // max(1, len(candidates)))
    for start in range(0, n_rows, block):
        rows = slice(start, min(start + block, n_rows))
        scores = (queries[query_ids[rows]] @ distinct.T)[:, column]  # (rows, n_candidates)
        _rank_block(scores, candidate_ids[rows], ranks, rows)
    return ranks


def _rank_block(scores: NDArray[np.float32], candidate_ids: NDArray[np.int32], ranks: Ranks, rows: slice) -> None:
    """Fill `ranks[rows]` from the scores (rows, n_candidates) of every candidate of the task."""
    lines = np.arange(len(scores))
    truth = candidate_ids[:, 0]
    truth_score = scores[lines, truth][:, None]
    absent = candidate_ids < 0
    others = np.zeros(scores.shape, dtype=np.bool_)  # the row's candidates but for the ground truth, each once
    others[np.broadcast_to(lines[:, None], candidate_ids.shape)[~absent], candidate_ids[~absent]] = True
    others[lines, truth] = False

    listed = np.take_along_axis(scores, np.where(absent, 0, candidate_ids), axis=1)
    listed[absent] = -np.inf
    ranks.rank[rows] = 1 + np.count_nonzero(others & (scores >= truth_score), axis=1)
    ranks.tied[rows] = np.count_nonzero(others & (scores == truth_score), axis=1)
    ranks.predicted[rows] = listed.argmax(axis=1)
    ranks.score[rows] = truth_score[:, 0]
    ranks.runner_up[rows] = scores.max(axis=1, where=others, initial=-np.inf)


def _distinct_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The distinct rows, in an order of their content alone, and which of them each row of `vectors` is."""
    vectors = np.ascontiguousarray(vectors) + np.float32(0)  # -0 becomes 0
    digests = np.array([hashlib.blake2b(row.data, digest_size=16).digest() for row in vectors], dtype="V16")
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return vectors[first], inverse
