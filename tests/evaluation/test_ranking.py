"""Ranks against scipy's, and the rules on ties, copies and order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import rankdata

from mmeb.evaluation import ranking
from mmeb.evaluation.ranking import rank
from mmeb.results.ranks import Ranks, hit_at_1_ties_for_model


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def random_task(
    seed: int, n_rows: int = 40, n_candidates: int = 60, width: int = 25
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """Vectors of small integers, whose products are exact and tie often; ragged rows with copies."""
    rng = np.random.default_rng(seed)
    queries = rng.integers(-2, 3, (n_rows, 4)).astype(np.float32)
    candidates = rng.integers(-2, 3, (n_candidates, 4)).astype(np.float32)
    candidate_ids = rng.integers(0, n_candidates, (n_rows, width)).astype(np.int32)
    for row, length in enumerate(rng.integers(1, width + 1, n_rows)):
        candidate_ids[row, length:] = -1
    return queries, candidates, rng.integers(0, n_rows, n_rows).astype(np.int32), candidate_ids


@pytest.mark.parametrize("seed", range(5))
def test_ranks_equal_scipys_over_the_distinct_candidates(seed: int) -> None:
    queries, candidates, query_ids, candidate_ids = random_task(seed)
    ranks = rank(queries, candidates, query_ids, candidate_ids)
    for row in range(len(query_ids)):
        truth = candidate_ids[row, 0]
        distinct = [truth, *sorted({i for i in candidate_ids[row] if i >= 0} - {truth})]
        scores = candidates[distinct].astype(np.float64) @ queries[query_ids[row]]
        assert ranks.rank[row] == rankdata(-scores, method="max")[0]
        assert ranks.tied[row] == np.count_nonzero(scores[1:] == scores[0])
        listed = candidate_ids[row][candidate_ids[row] >= 0]
        in_list = candidates[listed].astype(np.float64) @ queries[query_ids[row]]
        assert in_list[ranks.predicted[row]] == in_list.max()
        assert ranks.score[row] == scores[0]
        assert ranks.runner_up[row] == (scores[1:].max() if len(scores) > 1 else -np.inf)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_candidates_changes_no_rank(seed: int) -> None:
    queries, candidates, query_ids, candidate_ids = random_task(seed)
    rng = np.random.default_rng(seed)
    renumbering = rng.permutation(len(candidates)).astype(np.int32)
    shuffled_ids = np.where(candidate_ids < 0, -1, renumbering[candidate_ids]).astype(np.int32)
    for row in shuffled_ids:
        rng.shuffle(row[1 : np.count_nonzero(row >= 0)])
    shuffled = np.empty_like(candidates)
    shuffled[renumbering] = candidates
    before, after = (
        rank(queries, candidates, query_ids, candidate_ids),
        rank(queries, shuffled, query_ids, shuffled_ids),
    )
    np.testing.assert_array_equal(before.rank, after.rank)
    np.testing.assert_array_equal(before.tied, after.tied)
    np.testing.assert_array_equal(before.score, after.score)


def test_vectors_that_begin_alike_are_told_apart() -> None:
    ranks = ranks_of([[1, 0, *[0] * 20, 1], [1, 0, *[0] * 20, 0.5]], [0, 1])
    assert (ranks.rank[0], ranks.tied[0]) == (2, 0)


def test_blocks_of_any_size_give_the_same_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    task = random_task(3)
    whole = rank(*task)
    monkeypatch.setattr(ranking, "_BLOCK_SCORES", 150)
    np.testing.assert_array_equal(rank(*task).rank, whole.rank)


def ranks_of(candidates: list[list[float]], candidate_ids: list[int]) -> Ranks:
    query = np.eye(1, len(candidates[0]), dtype=np.float32)
    ids = np.array([candidate_ids], dtype=np.int32)
    return rank(query, unit(np.array(candidates)), np.zeros(1, dtype=np.int32), ids)


def test_a_tie_counts_against_the_model_and_for_it_under_the_references_rule() -> None:
    ranks = ranks_of([[1, 0], [1, 0], [0, 1]], [0, 1, 2])
    assert (ranks.rank[0], ranks.tied[0]) == (2, 1)
    assert hit_at_1_ties_for_model(ranks) == 1.0


def test_a_copy_of_the_ground_truth_is_no_rival() -> None:
    ranks = ranks_of([[1, 0], [0, 1]], [0, 0, 1, 0])
    assert (ranks.rank[0], ranks.tied[0]) == (1, 0)


def test_a_better_candidate_that_is_listed_twice_counts_once() -> None:
    assert ranks_of([[0, 1], [1, 0]], [0, 1, 1]).rank[0] == 2


def test_the_prediction_is_the_first_of_equals() -> None:
    assert ranks_of([[0, 1], [1, 0], [1, 0]], [0, 2, 1]).predicted[0] == 1


@pytest.mark.parametrize("n_candidates", [1, 7, 16, 33, 1000])
def test_equal_vectors_tie_exactly_wherever_they_stand(n_candidates: int) -> None:
    rng = np.random.default_rng(n_candidates)
    query, vector = unit(rng.normal(size=(1, 1536))), unit(rng.normal(size=(1, 1536)))
    others = unit(rng.normal(size=(n_candidates, 1536)))
    candidates = np.concatenate([vector, others, vector])
    ids = np.arange(len(candidates), dtype=np.int32)[None]
    assert rank(query, candidates, np.zeros(1, dtype=np.int32), ids).tied[0] == 1
